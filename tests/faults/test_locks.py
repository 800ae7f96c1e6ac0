"""Lock files that another process holds for ever: everything goes on, and says who it is."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from emberd import flock, state
from emberd.spaces.lock import LockEntry, LockFile
from tests.serving import Server, has_ended, run_emberd, wait_for

FOREIGN = """
import fcntl, sys
fcntl.flock(file := open(sys.argv[1], "a"), fcntl.LOCK_EX)
print(flush=True)
input()
"""
OURS = """
import sys
from pathlib import Path
from emberd.flock import locked
with locked(Path(sys.argv[1]), 9):
    print(flush=True)
    input()
"""
ENTRY = LockEntry(source="package:some", folder="/somewhere")


@contextmanager
def held(file: Path, script: str = FOREIGN) -> Iterator["subprocess.Popen[bytes]"]:
    """Have another process hold the lock of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", script, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_held_lock_keeps_no_model_from_serving_and_no_server_from_ending(home: Path) -> None:
    with Server(home) as own, held(home / "state" / "lock.flock") as holder:
        own.http.timeout = 30
        for number in range(3):
            own.embed(f"text {number}")
        assert own.http.post("/load").status_code == 200
        assert own.http.get("/models").status_code == 200
        assert own.http.post("/unload").json()["models"] == ["minilm"]
        own.embed("and again")
        own.process.send_signal(signal.SIGTERM)

        assert own.process.wait(30) == 0
        said = f"minilm: lock.json cannot be written: it is locked by process {holder.pid} (python"
        assert said in own.log()
        assert not (home / "state" / "lock.json").exists()


@pytest.mark.slow
def test_a_lock_that_is_held_for_a_moment_costs_no_entry(home: Path) -> None:
    with Server(home, entry="tests.faults.patient") as own:
        with held(home / "state" / "lock.flock"):
            own.embed("text")
        wait_for(lambda: own.row()["pulled"])


@pytest.mark.slow
def test_a_signal_ends_the_server_while_a_write_waits_for_the_lock(home: Path) -> None:
    with Server(home) as own, held(home / "state" / "lock.flock"):
        own.embed("text")
        workers = own.workers()
        own.process.send_signal(signal.SIGTERM)

        assert own.process.wait(20) == 0
        assert all(map(has_ended, workers))


@pytest.mark.parametrize("script", [FOREIGN, OURS], ids=["foreign", "ours"])
def test_who_holds_a_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(state, "LOCK_S", 0.2)
    with held(tmp_path / "lock.flock", script) as holder:
        with pytest.raises(TimeoutError) as caught:
            LockFile(tmp_path).put("mine", ENTRY)

        assert str(caught.value.strerror).startswith(
            f"it is locked by process {holder.pid} (python"
        )
        assert caught.value.filename == str(tmp_path / "lock.flock")
    LockFile(tmp_path).put("mine", ENTRY)
    assert LockFile(tmp_path).read() == {"mine": ENTRY}


@pytest.mark.slow
def test_where_the_system_does_not_tell_who_holds_a_lock_its_file_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flock, "LOCKS", tmp_path / "nothing")  # as on macOS
    with held(tmp_path / "lock.flock", OURS) as holder, pytest.raises(TimeoutError) as ours:
        LockFile(tmp_path).put("mine", ENTRY)
    (tmp_path / "lock.flock").write_text("")
    with held(tmp_path / "lock.flock"), pytest.raises(TimeoutError) as foreign:
        LockFile(tmp_path).put("mine", ENTRY)

    assert f"process {holder.pid} (python" in str(ours.value.strerror)
    assert foreign.value.strerror == "it is locked by another process"


@pytest.mark.slow
def test_a_command_line_that_may_hold_texts_is_not_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock.flock") as holder, pytest.raises(TimeoutError) as caught:
        LockFile(tmp_path).put("mine", ENTRY)

    assert "fcntl" not in str(caught.value.strerror)
    assert str(holder.pid) in str(caught.value.strerror)


def test_a_lock_is_free_again_when_its_file_is_replaced_by_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock.flock")

    LockFile(tmp_path).put("mine", ENTRY)

    assert LockFile(tmp_path).read() == {"mine": ENTRY}


@pytest.mark.slow
def test_use_does_not_wait_for_ever_for_another_run(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("default: minilm\n")
    with held(home / ".config.yaml.lock") as holder:
        done = run_emberd("use", "minilm-f32", "--yes", home=home)

    assert done.returncode == 1
    assert f"it is locked by process {holder.pid} (python" in done.stderr.decode()
    assert b"hint: " in done.stderr
    assert (home / "config.yaml").read_text() == "default: minilm\n"


def test_a_download_that_another_process_began_and_stopped_at_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emberd.errors import SourceError
    from emberd.models import hub

    monkeypatch.setattr(hub, "STANDS_STILL_S", 0.5)
    found: list[tuple[int, int]] = []
    progress = hub._Progress(lambda done, total: found.append((done, total)), 0, 100)
    file = hub._Large(
        repository="me/mine", name="model.safetensors", size=100, sha256="0" * 64, commit="c" * 40,
        blobs=tmp_path,
    )  # fmt: skip
    part = tmp_path / f"{'0' * 64}.part"
    part.write_bytes(b"!" * 10)
    with held(part.with_suffix(".lock")) as holder, pytest.raises(SourceError) as caught:
        file.fetch(progress)

    assert f"it is locked by process {holder.pid} (python" in caught.value.message
    assert caught.value.hint
