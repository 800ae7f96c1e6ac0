"""One changed byte is caught and named, though size, mtime and inode stay, until it is accepted."""

import json
from pathlib import Path

import pytest

from emberd.spaces.lock import LockFile
from tests.serving import run_emberd
from tests.verify.support import Report, copy_minilm, tamper

ENTRY = "sources: [{{path: {name}}}], dimensions: 384, pooling: mean, max_tokens: 512"
NAMES = ("weights", "tokenizer", "config")


def flip_a_bit_of_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def misspell_a_word(content: bytes) -> bytes:
    assert content.count(b'"lighthouse":') == 1
    return content.replace(b'"lighthouse":', b'"lighthousf":')


def widen_the_epsilon(content: bytes) -> bytes:
    assert content.count(b"1e-12") == 1
    return content.replace(b"1e-12", b"1e-02")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three copies of MiniLM, each used once, of which a byte was changed since."""
    home = tmp_path_factory.mktemp("tampered")
    models = [f"  {name}: {{{ENTRY.format(name=name)}}}" for name in NAMES]
    (home / "config.yaml").write_text("\n".join(["models:", *models]))
    for name in NAMES:
        copy_minilm(home / name, own_weights=name == "weights")
    before = Report(*NAMES, home=home)
    assert before.code == 0, before.rows
    assert before.verdict("weights", "files") == "skipped"  # there was nothing to compare yet
    tamper(home / "weights/model.safetensors", flip_a_bit_of_the_middle)
    tamper(home / "tokenizer/tokenizer.json", misspell_a_word)
    tamper(home / "config/config.json", widen_the_epsilon)
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> Report:
    """What verify says of them."""
    return Report(*NAMES, home=home)


@pytest.mark.parametrize(
    ("model", "file"),
    [
        ("weights", "model.safetensors"),
        ("tokenizer", "tokenizer.json"),
        ("config", "config.json"),
    ],
)
def test_a_changed_byte_is_caught_and_its_file_is_named(
    report: Report, model: str, file: str
) -> None:
    row = report.row(model, "files")

    assert (report.code, report.ok) == (1, False)
    assert (row["verdict"], row["detail"]) == ("failed", f"{file} has changed")
    assert f"emberd verify --accept {model}" in row["advice"]


def test_what_moved_vectors_and_what_did_not_is_told_apart(report: Report) -> None:
    assert report.verdict("weights", "space") == "ok"
    assert report.verdict("config", "space") == "failed"


@pytest.mark.slow
def test_what_was_changed_is_named_again_until_it_is_accepted(home: Path, report: Report) -> None:
    remembered = LockFile(home / "state").read()["config"]

    done = run_emberd("verify", "config", home=home)
    table = done.stdout.decode()

    assert done.returncode == 1
    assert "config.json has changed" in table
    assert remembered.changed_to
    for fingerprint in (remembered.fingerprint, remembered.changed_to.fingerprint):
        assert fingerprint
        assert fingerprint in table
    advice = [line for line in table.splitlines() if line.startswith("config, space: ")]
    assert len(advice) == 1
    assert "emberd verify --accept config" in advice[0]


def test_an_accepted_space_is_named_and_what_is_stored_is_to_be_embedded_again(
    home: Path, report: Report
) -> None:
    before = LockFile(home / "state").read()["config"]

    done = run_emberd("verify", "--accept", "config", home=home)

    after = LockFile(home / "state").read()["config"]
    assert before.changed_to
    assert after.fingerprint == before.changed_to.fingerprint
    assert done.returncode == 0
    assert f"space {after.fingerprint}" in done.stdout.decode()
    assert f"space {before.fingerprint} must be embedded again" in done.stdout.decode()
    verified = Report("config", home=home)
    assert verified.verdict("config", "space") == "ok"
    assert verified.verdict("config", "files") == "ok"


@pytest.mark.slow
def test_accepted_files_that_move_no_vector_ask_for_nothing_more(
    home: Path, report: Report
) -> None:
    first = run_emberd("verify", "--accept", "weights", home=home)
    second = run_emberd("verify", "--accept", "weights", "--json", home=home)

    assert (first.returncode, second.returncode) == (0, 0)
    assert b"Accepted the changed files of weights" in first.stdout
    assert json.loads(second.stdout) == {"model": "weights", "accepted": None}


@pytest.mark.slow
def test_what_was_never_used_here_has_nothing_to_accept(home: Path) -> None:
    done = run_emberd("verify", "--accept", "minilm", home=home)

    assert done.returncode == 0
    assert b"has not changed" in done.stdout
