"""What `emberd pull`, `prepare` and `serve --prepare` compile before the first request."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.spaces.lock import LockFile
from tests.serving import Server, clean_environ, run_emberd

CONFIG = (
    "default: tiny\nmodels: {{tiny: {{sources: [{{path: {}}}], dimensions: 64, pooling: mean}}}}\n"
)
PREPARE = {"EMBERD_LIMITS_PREPARE": "true"}


@pytest.fixture
def home(home: Path) -> Path:
    """A home whose default is a small model that was never loaded."""
    tiny_bert(home / "model")
    (home / "config.yaml").write_text(CONFIG.format(home / "model"))
    return home


def emberd(home: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command; return what it wrote to stdout and stderr."""
    environ = clean_environ(home) | PREPARE
    done = run_emberd(*arguments, home=home, environ=environ, share_compiled=False)
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def compiled(home: Path) -> dict[str, int]:
    """Return what is in the cache: files, and when each was written."""
    return {str(file): file.stat().st_mtime_ns for file in (home / "cache").glob("*/*/*")}


def test_after_a_pull_the_first_request_compiles_nothing(home: Path) -> None:
    said, warned = emberd(home, "pull", "tiny")
    before, entry = compiled(home), LockFile(home / "state").read()["tiny"]
    with Server(home, environ=PREPARE, share_compiled=False) as own:
        own.embed("text")

    assert "\n  prepared for this machine in " in said
    assert warned == ""
    assert len(before) == 1
    assert compiled(home) == before
    after = LockFile(home / "state").read()["tiny"]
    assert (after.probes, after.kept) == (entry.probes, entry.kept)


def test_nothing_is_prepared_twice(home: Path) -> None:
    first = json.loads(emberd(home, "pull", "tiny", "--json")[0])["models"][0]
    again = json.loads(emberd(home, "pull", "tiny", "--json")[0])["models"][0]

    assert first["prepared_s"] > 0
    assert again["prepared_s"] is None
    assert emberd(home, "prepare") == ("", "")


def test_a_home_that_comes_to_another_processor_is_prepared_again(home: Path) -> None:
    emberd(home, "prepare")
    lock = LockFile(home / "state")
    entry = lock.read()["tiny"]
    lock.put("tiny", replace(entry, processor="another"))

    assert "tiny: prepared for this machine in " in emberd(home, "prepare")[0]
    assert LockFile(home / "state").read()["tiny"].processor == entry.processor


def test_what_cannot_be_stored_is_told_and_tried_again_when_somebody_asks(home: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "openvino").touch()  # a file in the place of the folder

    for _ in range(2):
        said = emberd(home, "prepare", code=1)[1]
        assert f"error: What is compiled for tiny cannot be stored in {home / 'cache'}." in said
    (home / "cache" / "openvino").unlink()

    assert "tiny: prepared for this machine in " in emberd(home, "prepare")[0]
    assert len(compiled(home)) == 1
    assert emberd(home, "prepare") == ("", "")


def test_prepare_compiles_what_is_named_or_the_default(home: Path) -> None:
    named = json.loads(emberd(home, "prepare", "tiny", "--json")[0])

    assert [row["name"] for row in named["models"]] == ["tiny"]
    assert named["models"][0]["prepared_s"] > 0
    assert "mpnet is not on this machine." in emberd(home, "prepare", "mpnet", code=1)[1]


def test_a_default_that_is_not_here_is_told_from_one_that_was_prepared(home: Path) -> None:
    emberd(home, "prepare")
    (here,) = json.loads(emberd(home, "prepare", "--json")[0])["models"]
    config = home / "config.yaml"
    config.write_text(config.read_text().replace("default: tiny", "default: mpnet"))
    (gone,) = json.loads(emberd(home, "prepare", "--json")[0])["models"]

    assert here == {"name": "tiny", "status": "prepared", "prepared_s": None}
    assert gone == {"name": "mpnet", "status": "not_here", "prepared_s": None}
    assert "mpnet: not on this machine, so nothing was compiled." in emberd(home, "prepare")[0]


def test_remove_gives_back_what_was_compiled(home: Path) -> None:
    emberd(home, "pull", "tiny")
    size = sum(Path(file).stat().st_size for file in compiled(home))

    said = json.loads(emberd(home, "remove", "tiny", "--json")[0])

    assert said["compiled_bytes"] >= size > 0
    assert compiled(home) == {}


def test_a_pull_of_a_model_that_does_not_load_ends_with_a_warning(home: Path) -> None:
    (home / "model" / "model.safetensors").write_bytes(b"not weights")

    said, warned = emberd(home, "pull", "tiny")

    assert said.startswith("tiny: here")
    assert "warning: tiny was not compiled before its first request: " in warned
    assert "error: " in emberd(home, "prepare", code=1)[1]


def test_files_that_changed_are_compared_by_a_pull(home: Path) -> None:
    emberd(home, "pull", "tiny")
    tiny_bert(home / "model", seed=2)

    said, _ = emberd(home, "pull", "tiny")

    assert "its vectors are not the same: the lowest cosine of the probe texts is" in said


def test_a_server_can_prepare_its_default_before_it_listens(home: Path) -> None:
    with Server(
        home, arguments=("--prepare", "--port", "0"), environ=PREPARE, share_compiled=False
    ) as own:
        before = compiled(home)
        own.embed("text")

        assert len(before) == 1
        assert compiled(home) == before


def test_the_setting_keeps_a_pull_from_compiling(home: Path) -> None:
    said = run_emberd("pull", "tiny", home=home).stdout

    assert b"prepared" not in said
    assert compiled(home) == {}
