"""What `tests.forked` runs behaves as a process that was started in the usual way."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.forked import Forked, is_ordinary
from tests.serving import Server, clean_environ, run_emberd, wait_for

ROOT = Path(__file__).parents[1]


def run_entry(entry: str, stdin: bytes, environ: dict[str, str]) -> tuple[int, bytes]:
    """Run another module's `main`; return its exit code and what it printed."""
    with ExitStack() as files:
        given, out = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        given.write(stdin)
        given.seek(0)
        process = Forked([], environ=environ, stdin=given, stdout=out, stderr=out, entry=entry)
        code = process.wait(30)
        out.seek(0)
        return code, out.read()


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(("--version",), marks=pytest.mark.slow), ("use", "nope"), ("embed", "--nope")],
)
def test_it_prints_and_ends_as_the_real_one_does(home: Path, arguments: tuple[str, ...]) -> None:
    real = run_emberd(*arguments, home=home, forked=False)
    forked = run_emberd(*arguments, home=home)

    assert (forked.returncode, forked.stdout, forked.stderr) == (
        real.returncode,
        real.stdout,
        real.stderr,
    )


def test_it_has_the_environment_folder_umask_and_input_of_whoever_starts_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("A_TOKEN_OF_MINE", "not passed on")
    environ = clean_environ(home) | {"A": "1"}
    umask = os.umask(0o031)
    try:
        code, printed = run_entry("tests.surroundings", b"a text", environ)
    finally:
        os.umask(umask)

    assert code == 7
    assert json.loads(printed) == [environ, str(tmp_path), 0o031, "a text"]


def test_it_waits_for_threads_and_runs_exit_handlers_and_flushes(home: Path) -> None:
    assert run_entry("tests.farewell", b"", clean_environ(home)) == (3, b"main\nthread\nhandler\n")


def test_a_signal_ends_it_and_is_its_exit_code(home: Path) -> None:
    with Server(home) as own:
        own.process.kill()

        assert own.process.wait(10) == -signal.SIGKILL
        assert own.process.poll() == -signal.SIGKILL


@pytest.mark.slow
def test_it_ends_with_whoever_started_it(home: Path) -> None:
    starter = (
        "import os, sys; from pathlib import Path; from tests.serving import Server;"
        " print(Server(Path(sys.argv[1])).process.pid, flush=True);"
        " os.kill(os.getpid(), 9)"
    )

    done = subprocess.run([sys.executable, "-c", starter, home], capture_output=True, cwd=ROOT)

    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_for(lambda: not psutil.pid_exists(int(done.stdout)))


def test_what_an_interpreter_reads_at_its_start_needs_one_of_its_own() -> None:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE_")}

    assert is_ordinary(environ)
    assert is_ordinary(environ | {"EMBERD_TOKEN": "t"})
    assert not is_ordinary(environ | {"PYTHONPATH": "/elsewhere"})
    assert not is_ordinary(environ | {"LC_ALL": "of-elsewhere"})
    assert not is_ordinary(environ | {"LD_PRELOAD": "/clock.so"})
    assert not is_ordinary(environ | {"COVERAGE_PROCESS_START": "pyproject.toml"})


def test_children_can_be_interrupted_when_the_suite_runs_in_a_shells_background() -> None:
    suite = (
        "import subprocess, sys; from tests import conftest; conftest.pytest_configure();"
        "subprocess.run([sys.executable, '-c',"
        " 'import signal; print(signal.getsignal(signal.SIGINT).__name__)'])"
    )
    shell = 'trap \'\' INT; exec "$0" -c "$1"'

    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable, suite], capture_output=True, cwd=ROOT
    )

    assert done.stdout.strip() == b"default_int_handler", done.stderr
