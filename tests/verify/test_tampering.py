"""One changed byte is caught and named, though size, mtime and inode stay, until it is accepted."""

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.spaces.lock import LockFile
from tests.serving import run_emberd
from tests.verify.support import Report, tamper

ENTRY = "sources: [{{path: {name}}}], dimensions: 64, pooling: mean"


def flip_a_bit_of_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def misspell_a_word(content: bytes) -> bytes:
    assert content.count(b'"bird":') == 1
    return content.replace(b'"bird":', b'"birs":')


def widen_the_epsilon(content: bytes) -> bytes:
    assert content.count(b"1e-12") == 1
    return content.replace(b"1e-12", b"1e+02")


CHANGES = {
    "weights": ("model.safetensors", flip_a_bit_of_the_middle),
    "tokenizer": ("tokenizer.json", misspell_a_word),
    "config": ("config.json", widen_the_epsilon),
}


@dataclass(frozen=True)
class Tampered:
    """A model that was used once, of which a byte was changed since; what verify says of it."""

    home: Path
    report: Report


Tamper = Callable[[str], Tampered]


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Tamper:
    """Makes the model in which the file of that name in `CHANGES` was changed, once."""

    @functools.cache
    def make(name: str) -> Tampered:
        home = tmp_path_factory.mktemp(name)
        (home / "config.yaml").write_text(f"models: {{{name}: {{{ENTRY.format(name=name)}}}}}")
        tiny_bert(home / name)
        (home / name / "1_Pooling").mkdir()  # else it would be loaded with every pooling
        (home / name / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
        before = Report(name, home=home)
        assert before.code == 0, before.rows
        assert before.verdict(name, "files") == "skipped"  # there was nothing to compare yet
        file, change = CHANGES[name]
        tamper(home / name / file, change)
        return Tampered(home, Report(name, home=home))

    return make


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("weights", marks=pytest.mark.slow),
        pytest.param("tokenizer", marks=pytest.mark.slow),
        "config",
    ],
)
def test_a_changed_byte_is_caught_and_its_file_is_named(tampered: Tamper, model: str) -> None:
    file, _ = CHANGES[model]
    report = tampered(model).report

    row = report.row(model, "files")

    assert (report.code, report.ok) == (1, False)
    assert (row["verdict"], row["detail"]) == ("failed", f"{file} has changed")
    assert f"emberd verify --accept {model}" in row["advice"]


def test_a_change_that_moved_vectors_is_another_space(tampered: Tamper) -> None:
    assert tampered("config").report.verdict("config", "space") == "failed"


@pytest.mark.slow
def test_a_change_that_moved_no_vector_is_the_same_space(
    tampered: Tamper,
) -> None:
    assert tampered("weights").report.verdict("weights", "space") == "ok"


@pytest.mark.slow
def test_what_was_changed_is_named_again_until_it_is_accepted(
    tampered: Tamper,
) -> None:
    home = tampered("config").home
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
    tampered: Tamper,
) -> None:
    home = tampered("config").home
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
    tampered: Tamper,
) -> None:
    home = tampered("weights").home
    first = run_emberd("verify", "--accept", "weights", home=home)
    second = run_emberd("verify", "--accept", "weights", "--json", home=home)

    assert (first.returncode, second.returncode) == (0, 0)
    assert b"Accepted the changed files of weights" in first.stdout
    assert json.loads(second.stdout) == {"model": "weights", "accepted": None}


def test_what_was_never_used_here_has_nothing_to_accept(home: Path) -> None:
    done = run_emberd("verify", "--accept", "minilm", home=home)

    assert done.returncode == 0
    assert b"has not changed" in done.stdout
