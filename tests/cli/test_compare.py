"""`emberd compare`: what it prints, on a store and on files, with a server and without."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import pytest

from emberd.cli.compare_report import show_comparison
from tests.migrate import stores
from tests.rerankers import FOLDER
from tests.serving import Server, clean_environ, run_emberd, wait_for

CONFIG = f"""
default: old
stores: {{notes: {{path: notes}}}}
{stores.MODELS}  tiny: {{kind: rerank, pooling: cls, compute: f32, sources: [{{path: {FOLDER}}}]}}
"""
TEXTS = [text[:40] for text in stores.texts(30)]
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def fill(home: Path) -> Path:
    """Write a configuration, a store of `old`, and a file of texts."""
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(CONFIG)
    (home / "lines.txt").write_text("\n".join(TEXTS))
    vectors = stores.embed(home, TEXTS, "old")
    stores.make_cmem(home / "notes", TEXTS, vectors, journal="delete")
    return home


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = fill(tmp_path_factory.mktemp("served"))
    with Server(home, config=CONFIG) as server:
        yield server


@pytest.fixture(params=["a server", pytest.param("no server", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest) -> Path:
    """A home where a server runs, and one where none does."""
    if request.param == "a server":
        server: Server = request.getfixturevalue("served")
        return server.home
    home: Path = request.getfixturevalue("filled")
    return home


def test_a_store_is_compared_and_stays_as_it_is(place: Path) -> None:
    before = (place / "notes" / "memories.db").read_bytes()

    done = run_emberd("compare", "old", "new", "--store", "notes", "--rerank", "tiny", home=place)

    assert done.returncode == 0, done.stderr
    shown = ESCAPES.sub("", done.stdout.decode())
    table = [re.split(r"\s{2,}", line.strip()) for line in shown.splitlines()[2:13]]
    rows = {label: cells for label, *cells in table}
    assert table[0] == ["old", "new"]
    assert rows["kept at 10"][0] == "-"
    assert 0 < float(rows["kept at 10"][1].removesuffix(" of 10")) < 10
    assert rows["dimensions"] == ["64", "64"]
    assert rows["vectors of 30 texts"] == ["7.5 KiB", "7.5 KiB"]
    assert rows["time to migrate"][0] == "none"
    assert re.fullmatch(r"\d+s", rows["time to migrate"][1])
    for said in (
        "notes: all 30 texts, each searched for among the others.",
        "The store's vectors are those of old, and were used.",
        "It says how much would change, not",
        "Where new differs most from old:",
        "tiny sorted the nearest 29 of old again, for 30 queries:",
        "What tiny puts first:",
    ):
        assert said in shown
    assert sum(text in shown for text in TEXTS) > 5
    assert (place / "notes" / "memories.db").read_bytes() == before
    assert not any(text in done.stderr.decode() for text in TEXTS)


def test_for_programs_and_for_a_page(place: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.svg"
    (tmp_path / "q.txt").write_text("\n".join(TEXTS[:15]))

    done = run_emberd(
        "compare", "old", "new", "--texts", str(place / "lines.txt"),
        "--queries", str(tmp_path / "q.txt"), "--rerank", "tiny", "--sample", "25",
        "--no-examples", "--picture", str(picture), "--json", home=place,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["texts"] == {"total": 30, "equal": 0, "used": 25}
    assert row["queries"] == {"given": True, "total": 15, "used": 15}
    assert [each["model"] for each in row["models"]] == ["old", "new"]
    assert not any(each["is_stored"] for each in row["models"])
    assert sum(row["against"][0]["counts"]) == 15
    assert row["rerank"]["queries"] == 15
    assert not any(text in done.stdout.decode() for text in TEXTS)
    assert ET.parse(picture).getroot().attrib["width"] == "390"  # noqa: S314 - ours


def test_a_server_keeps_what_was_loaded_and_unloads_what_was_not(served: Server) -> None:
    served.run("unload")
    served.run("load", "old")

    run_emberd("compare", "old", "new", "--store", "notes", home=served.home)

    loaded = json.loads(served.run("ps", "--json").stdout)["models"]
    assert [row["name"] for row in loaded if row["state"] == "ready"] == ["old"]
    log = served.log()
    assert "new" in log
    assert not any(text in log for text in TEXTS)


def test_few_texts_are_measured_but_not_compared(capsys: pytest.CaptureFixture[str]) -> None:
    models = [{
        "model": name, "texts_per_s": 9.5, "query_ms": 3.0, "memory_bytes": 2**20,
        "weights_bytes": 0, "compiled_bytes": 0, "dimensions": 8, "vectors_bytes": 160,
        "embed_s": 1.0, "is_stored": False, "cut": 0.25, "score": None,
    } for name in ("old", "new")]  # fmt: skip

    show_comparison(
        {
            "source": "file", "texts": {"total": 5, "equal": 0, "used": 5}, "models": models,
            "queries": {"given": False, "total": 5, "used": 0}, "few": True, "against": [],
            "rerank": None, "judged_but_missing": 0, "load_per_core": 3.14159,
        },
        Path("/some/where/few.txt"),
    )  # fmt: skip

    shown, warned = capsys.readouterr()
    assert shown.startswith("few.txt: all 5 texts.\n")
    assert "25.0%" in shown and "kept" not in shown
    assert "With 5 texts, the ten nearest are most of them" in shown
    assert "busy with other work (3.1 processes for each core)" in warned


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["old", "new"], "either --store or --texts"),
        (["old", "new", "--store", "notes", "--texts", "lines.txt"], "either --store or --texts"),
        (["old", "new", "--texts", "lines.txt", "-o", "text=a.b"], "say how to read a --store"),
        (["old", "new", "--store", "nowhere"], "no store nowhere"),
        (["old", "new", "--texts", "nowhere"], "No such file"),
        (["old", "new", "--store", "notes", "--sample", "some"], "--sample some"),
        (["old", "new", "--store", "notes", "--picture", "no/where.svg"], "There is no folder"),
        (["old", "mpnet", "--store", "notes"], "emberd pull mpnet"),
        (["old", "tiny", "--store", "notes"], "tiny re-ranks"),
        (["old", "--store", "notes", "--rerank", "new"], "new embeds"),
        (["old", "--store", "notes"], "add a re-ranker with --rerank"),
    ],
)
def test_what_is_wrong_is_said_at_once(filled: Path, arguments: list[str], words: str) -> None:
    done = run_emberd("compare", *arguments, home=filled)

    assert done.returncode == 1
    assert words in " ".join(done.stderr.decode().split())
    assert done.stdout == b""


def test_ctrl_c_leaves_nothing_behind(filled: Path, tmp_path: Path) -> None:
    many = tmp_path / "many.txt"
    many.write_text("\n".join(stores.texts(3000)))
    before = sorted(filled.rglob("*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "emberd", "compare", "old", "new", "--texts", str(many),
         "--picture", str(tmp_path / "picture.svg")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environ(filled),
    )  # fmt: skip
    workers = wait_for(lambda: psutil.Process(process.pid).children(recursive=True))
    process.send_signal(signal.SIGINT)
    out, complaint = process.communicate(timeout=60)

    assert process.returncode == 130, complaint
    assert out == b""
    psutil.wait_procs(workers, timeout=10)
    assert not any(worker.is_running() for worker in workers)
    assert not (tmp_path / "picture.svg").exists()
    assert sorted(filled.rglob("*")) == before
