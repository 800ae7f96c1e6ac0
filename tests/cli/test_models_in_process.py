"""`emberd remove` and `pull`: what is kept for others, what is refused, and what is said."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from emberd import running
from emberd.cli import context
from emberd.cli.context import resumable
from emberd.cli.main import INTERRUPTED_EXIT
from emberd.cli.models import _notes
from emberd.config.load import load_config
from emberd.folder.pull import FileCheck, Pulled
from emberd.models.availability import LocalCopy
from emberd.registry.spec import Source
from emberd.running import Running
from tests import model_folder
from tests.answering import EMBERD, INSTANCE, answering
from tests.in_process import run_here
from tests.serving import clean_environ

CONFIG = """
models:
  mine: {sources: [{hf: me/mine}], dimensions: 8, pooling: mean}
  twin: {sources: [{hf: me/mine}], dimensions: 8, pooling: cls}
  other: {sources: [{hf: me/other}], dimensions: 8, pooling: cls}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the files of two repositories; two models use one of them."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    for repository in ("me/mine", "me/other"):
        model_folder.cache(hub_of(tmp_path), repository)
    return tmp_path


def hub_of(home: Path) -> Path:
    return home / "hf" / "hub"


def repositories(home: Path) -> list[str]:
    return sorted(path.name for path in hub_of(home).glob("models--*"))


def test_files_that_another_model_uses_are_kept_unless_that_is_meant(home: Path) -> None:
    refused = run_here(home, "remove", "mine")
    assert refused.code == 1
    assert "me/mine is also used by twin" in refused.err
    assert "--yes" in refused.err
    assert repositories(home) == ["models--me--mine", "models--me--other"]

    some = run_here(home, "remove", "mine", "other")
    assert some.code == 0
    assert "me/other: removed" in some.out
    assert "me/mine is also used by twin: kept" in some.out
    assert repositories(home) == ["models--me--mine"]

    meant = run_here(home, "remove", "mine", "--yes")
    assert meant.code == 0
    assert "also removed the files of twin" in meant.out
    assert repositories(home) == []


def test_a_model_that_is_loaded_is_not_removed(home: Path) -> None:
    rows = [{"name": "other", "state": "ready"}, {"name": "mine", "state": "cold"}]
    answers = {"/health": (200, EMBERD), "/models": (200, {"models": rows})}
    with answering(answers) as server:
        noted = Running(os.getpid(), "127.0.0.1", server.port, "9.9", instance=INSTANCE)
        running.write(home / "state", noted)

        done = run_here(home, "remove", "other")

        assert done.code == 1
        assert f"other is loaded in the server at {server.url}" in done.err
        assert "`emberd unload other`" in done.err
    assert "models--me--other" in repositories(home)


def test_what_to_know_after_a_pull_is_said(home: Path) -> None:
    config = load_config(environ=clean_environ(home))
    spec = config.catalog.get("mine")
    here = LocalCopy(Source(hf="me/mine", revision="v1"), home, downloaded=False)
    found = Pulled(here, FileCheck((), "hub", newer="c0ffee"), "here", fingerprint="now")

    (newer,) = _notes(config, spec, found, None)
    assert "c0ffee" in newer
    assert "`emberd pull mine --update`" in newer
    assert _notes(config, spec, replace(found, status="updated"), None) == []

    settled = replace(found, check=FileCheck((), "hub"))
    (changed,) = _notes(config, spec, replace(settled, fingerprint_before="then"), None)
    assert "then and is now now" in changed
    (unused,) = _notes(config, spec, replace(settled, fingerprint=None), "v1")
    assert "`revision: v1`" in unused
    assert _notes(config, spec, settled, None) == []


def interrupted_in_a_lock() -> None:
    """Fail as `with condition: condition.wait()` does if Ctrl-C comes as it lets go of its lock."""
    lock = threading.Lock()
    with lock:
        lock.release()
        raise KeyboardInterrupt


@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_that_is_stopped_says_how_to_go_on(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["emberd", "pull", "a model"])
    monkeypatch.setattr(context, "errors_as_json", as_json)

    with pytest.raises(KeyboardInterrupt), resumable():
        raise KeyboardInterrupt

    said = capsys.readouterr()
    assert said.out == ""
    assert "emberd pull 'a model'" in said.err
    assert ('"code": "stopped"' in said.err) is as_json

    with pytest.raises(KeyboardInterrupt), resumable():
        interrupted_in_a_lock()
    assert capsys.readouterr() == said


def test_other_errors_pass_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (RuntimeError("another one"), ValueError("one"), SystemExit(1)):
        with pytest.raises(type(error)) as caught, resumable():
            raise error
        assert caught.value is error
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_in_the_middle_of_a_lock_is_ctrl_c() -> None:
    """Of any command, also of those that do not continue."""
    stopped = (
        "from emberd.cli import main\n"
        "from tests.cli.test_models_in_process import interrupted_in_a_lock as stop\n"
        "main.app.command('stop')(stop)\n"
        "main.sys.argv = ['emberd', 'stop']\n"
        "main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr) == (INTERRUPTED_EXIT, "", "")
