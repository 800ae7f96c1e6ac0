"""emberd's command line in processes that are forked from one that has imported it already.

A real process with an environment, standard streams, signals and an exit code of its own, which
starts in 20 ms instead of the 0.6 to 1 s of CPU time that Python and its imports take. What
depends on how the interpreter starts (`is_ordinary` tells) needs a process made in the usual way.

The template, one for each process that runs tests, listens on a socket. For every connection it
forks a keeper, which takes one request and the three standard streams, forks the command, and says
its process id and, when it has ended, its exit code. A command ends with whoever started it.
"""

import atexit
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

NUMBER_BYTES = 4
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "TZ")  # variables
NOT_IMPORTED = (
    "emberd.__main__", "emberd.backends.", "emberd.worker.", "emberd.doctor.probe",
    "emberd.stores.lancedb.table", "emberd.stores.lancedb.swap",  # Lance's threads end in a fork
    "emberd.ray.",  # so do Ray's
)  # fmt: skip
IMPORTED_LATER = (  # by some commands, when they run
    "uvicorn.protocols.http.httptools_impl", "uvicorn.loops.auto", "httpx2", "h11", "truststore",
    "filelock", "tqdm.auto", "rich.progress",
)  # fmt: skip

_address: str | None = None


def is_ordinary(environ: Mapping[str, str]) -> bool:
    """Whether a process with this environment would start as the template did.

    No process does whose lines are counted: what counts them does not come through forks whole.
    """
    if any(key.startswith("COVERAGE_") for key in environ):
        return False
    return all(
        environ.get(key) == os.environ.get(key)
        for key in {*environ, *os.environ}
        if key.startswith(READ_AT_START)
    )


class Forked:
    """One command line; what tests use of `subprocess.Popen`, with the same meaning."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environ: Mapping[str, str],
        stdin: IO[bytes],
        stdout: IO[bytes],
        stderr: IO[bytes],
        entry: str = "emberd.cli.main",
    ) -> None:
        """Run `emberd ARGUMENTS`; `entry` is the module whose `main` it runs."""
        os.umask(umask := os.umask(0))  # there is no other way to ask
        asked = {
            "arguments": [*arguments],
            "environ": dict(environ),
            "entry": entry,
            "folder": os.getcwd(),  # noqa: PTH109 - as it is passed on
            "umask": umask,
        }
        request = json.dumps(asked).encode()
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.connect(_template())
        streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
        socket.send_fds(self._link, [len(request).to_bytes(NUMBER_BYTES, "big")], streams)
        self._link.sendall(request)
        self.pid = _receive(self._link)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._link], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after `timeout` seconds.
        """
        if self.returncode is None:
            if not select.select([self._link], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("emberd", timeout or 0)
            self.returncode = _receive(self._link)
            self._link.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    stdin: IO[bytes],
    stdout: IO[bytes],
    stderr: IO[bytes],
    entry: str = "emberd.cli.main",
    prefix: Sequence[str] = (),
    forked: bool = True,
) -> "Forked | subprocess.Popen[bytes]":
    """Start `emberd ARGUMENTS`, or the `main` of another module, forked if that is possible.

    What has a `prefix` in front of its command is not, nor what shall not be `forked`.
    """
    if forked and not prefix and is_ordinary(environ):
        return Forked(
            arguments, environ=environ, stdin=stdin, stdout=stdout, stderr=stderr, entry=entry
        )
    command = [*prefix, sys.executable, "-m", entry, *arguments]
    return subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=environ)


def _receive(link: socket.socket) -> int:
    said = link.recv(NUMBER_BYTES, socket.MSG_WAITALL)
    assert len(said) == NUMBER_BYTES, "the process that forks has ended"
    return int.from_bytes(said, "big", signed=True)


def _template() -> str:
    """Return the address of this process's template, started when it is needed first."""
    global _address  # noqa: PLW0603 - one for each process, as long as it runs
    if _address is None:
        folder = tempfile.TemporaryDirectory(prefix="emberd-fork-")
        address = str(Path(folder.name) / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address)
            listener.listen(64)
            template = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[1],
                pass_fds=[listener.fileno()],
                env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
            )

        def end() -> None:
            assert template.stdin
            template.stdin.close()  # it ends when nobody can ask it any more
            template.wait(10)
            folder.cleanup()

        atexit.register(end)
        _address = address
    return _address


def _warm_up(home: Path) -> None:
    """Import what commands import when they run, and read what all of them read."""
    import emberd

    for module in pkgutil.walk_packages(emberd.__path__, "emberd."):
        if not module.name.startswith(NOT_IMPORTED):
            importlib.import_module(module.name)
    for name in IMPORTED_LATER:
        importlib.import_module(name)
    from emberd.config.load import load_config

    load_config(environ={"EMBERD_HOME": str(home), "HOME": str(home)})
    assert "huggingface_hub.constants" not in sys.modules, "it read whose environment it was"


def _serve(listener: socket.socket) -> dict[str, Any] | None:
    """Fork a keeper for each connection; return what to run in the process that has to run it."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        _bury()
        if listener not in ready:
            return None  # who started this process has ended
        link, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            return _keep(link)
        link.close()


def _bury() -> None:
    """Wait for the keepers that have ended, so that their CPU time counts as this process's."""
    with suppress(ChildProcessError):  # there are none
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _keep(link: socket.socket) -> dict[str, Any]:
    """Fork the command, and return in its process only: this one ends with it."""
    header, streams, _, _ = socket.recv_fds(link, NUMBER_BYTES, 3)
    many = int.from_bytes(header, "big")
    request: dict[str, Any] = json.loads(link.recv(many, socket.MSG_WAITALL))
    told, tell = socket.socketpair()  # that a child has ended
    tell.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell.fileno())
    if (pid := os.fork()) == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for mine in (link, told, tell):
            mine.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        return request
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of a terminal or a group, meant for the command
    for stream in (*streams, 0, 1, 2):
        os.close(stream)
    link.sendall(pid.to_bytes(NUMBER_BYTES, "big"))
    if link in select.select([told, link], [], [])[0]:
        os.kill(pid, signal.SIGKILL)  # whoever started it has gone without it
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):  # nobody may be left to hear it
        link.sendall(code.to_bytes(NUMBER_BYTES, "big", signed=True))
    os._exit(0)


def _main() -> None:
    import gc

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    listener = socket.socket(fileno=int(sys.argv[1]))
    _warm_up(Path(listener.getsockname()).parent)
    gc.freeze()  # what is shared stays shared
    request = _serve(listener)
    if request is None:
        return
    main = importlib.import_module(request["entry"]).main
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["emberd", *request["arguments"]]
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # type: ignore[union-attr]
    try:
        main()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            _end(end.code or 0)
        raise
    _end(0)


def _end(code: int) -> None:
    """End as an interpreter does, but leave its memory to the system: freeing it takes 50 ms."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _main()
