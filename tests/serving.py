"""A real emberd server as a process of its own, and real requests to it."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import psutil

from emberd import running
from emberd.client.address import Address
from emberd.server.timeouts import Timeouts
from tests import compiled
from tests.forked import start

START_S = 60.0
RUN_S = 120.0
LOAD_MODELS = ("add", "compare", "embed", "migrate", "use", "verify")
T = TypeVar("T")


class Server:
    """`emberd serve` on a free port, with a home of its own; a context manager."""

    def __init__(
        self,
        home: Path,
        *,
        config: str = "",
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = ("--port", "0"),
        entry: str = "emberd.cli.main",
        timeouts: Timeouts | None = None,
        rlimits: Mapping[int, int] | None = None,
        prefix: Sequence[str] = (),
        forked: bool = True,
        share_compiled: bool = True,
    ) -> None:
        """Start it and wait until it listens; `entry`: the module whose `main` is run.

        `timeouts`: of its connections, in place of the usual ones (see `tests.impatient`).
        `rlimits`: of its process and its workers, such as `{resource.RLIMIT_NOFILE: 200}`.
        `prefix` goes in front of its command, and of those that `run` runs; see `tests.powers`.
        Not `forked`: with an interpreter of its own. `share_compiled`: see `tests.compiled`.
        """
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        if config:
            (home / "config.yaml").write_text(config)
        self._prefix = [*prefix]
        self._environ = {**clean_environ(home), **(environ or {})}
        self._share_compiled = share_compiled
        if share_compiled:
            swept = _mark_sweep(home)
        command = ["serve", *arguments]
        if timeouts:
            entry, command = "tests.impatient", [json.dumps(asdict(timeouts))]
        elif rlimits:
            entry, command = "tests.limited", [json.dumps({**rlimits}), *command]
        with (home / "server.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
            self.process = start(
                command,
                environ=self._environ,
                stdin=nothing,
                stdout=log,
                stderr=log,
                entry=entry,
                prefix=prefix,
                forked=forked,
            )
        try:
            noted = wait_for(self._noted, within_s=START_S)
            if share_compiled:
                wait_for(swept)
                compiled.lend(home)
        except BaseException:
            self.process.kill()
            self.process.wait(30)
            raise
        self.url = noted.url
        at = Address(noted.url, noted.socket if noted.port is None else None)
        by = httpx2.HTTPTransport(**at.transport)
        self.http = httpx2.Client(base_url=self.url, timeout=60, trust_env=False, transport=by)

    def _noted(self) -> running.Running | None:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended at once:\n{self.log()}")
        noted = running.read(self.home / "state")
        return noted if noted and noted.pid == self.process.pid else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """End it as a service manager would; return its exit code."""
        self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        if self._share_compiled:
            compiled.keep(self.home)
        return code

    def log(self) -> str:
        """Everything it and its workers wrote."""
        return (self.home / "server.log").read_text(errors="replace")

    def embed(self, *texts: str, **options: object) -> dict[str, Any]:
        """POST /embed and return the answer, which has to be a good one."""
        response = self.http.post("/embed", json={"texts": texts, **options})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def row(self, name: str = "minilm") -> dict[str, Any]:
        """Return one row of /models."""
        rows = self.http.get("/models").json()["models"]
        return next(row for row in rows if row["name"] == name)

    def workers(self) -> list[psutil.Process]:
        """Return its worker processes."""
        return psutil.Process(self.process.pid).children()

    def run(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run the command line as the user of this server would."""
        return run_emberd(
            *arguments, home=self.home, environ=self._environ, stdin=stdin, prefix=self._prefix
        )


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Have a process do nothing meanwhile, so that nobody is answered; it may be killed."""
    process.suspend()
    try:
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def age(path: Path) -> None:
    """Make a file or folder of the cache, and what is in it, as old as what is swept away."""
    for each in (*path.glob("*"), path):
        os.utime(each, (0, 0))


def _mark_sweep(home: Path) -> Callable[[], bool]:
    """Return what tells that a server which starts now has deleted what its home need not keep.

    It does so beside the first requests, and would delete what `compiled.lend` gives it.
    """
    mark = home / "cache" / "~" / "~"
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        age(mark)
    except OSError:  # the test has made this home one that cannot be written to
        return lambda: True

    def swept() -> bool:
        if mark.exists():
            return False
        mark.parent.rmdir()
        return True

    return swept


def clean_environ(home: Path) -> dict[str, str]:
    """Return an environment without settings of whoever runs the tests, and without the Hub.

    Models are compiled when a test asks for one, and not in the background, where tests count
    processes and look for what they compiled.

    Nor with a terminal's size: pytest-xdist states one, which would beat that of a real terminal.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("EMBERD_", "HF_", "XDG_")) and key not in ("COLUMNS", "LINES")
    }
    return kept | {
        "EMBERD_HOME": str(home),
        "EMBERD_LIMITS_PREPARE": "false",
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
    }


def run_emberd(
    *arguments: str,
    home: Path,
    environ: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    prefix: Sequence[str] = (),
    entry: str = "emberd.cli.main",
    forked: bool = True,
    share_compiled: bool = True,
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line to its end, forked if nothing speaks against it (see `tests.forked`).

    `entry`: the module whose `main` is run.
    `share_compiled`: a command that loads models finds them compiled (see `tests.compiled`).
    """
    environ = dict(environ) if environ else clean_environ(home)
    if share_compiled and arguments and arguments[0] in LOAD_MODELS:
        compiled.lend(home)
    with ExitStack() as files:
        given, out, err = (files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        process = start(
            arguments,
            environ=environ,
            stdin=given,
            stdout=out,
            stderr=err,
            entry=entry,
            prefix=prefix,
            forked=forked,
        )
        try:
            code = process.wait(RUN_S)
        finally:
            process.kill()
            process.wait(30)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(["emberd", *arguments], code, out.read(), err.read())


def has_ended(process: psutil.Process) -> bool:
    """Say whether a process of somebody else's has ended; a zombie has, nobody buried it yet."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(look: Callable[[], T | None], *, within_s: float = 30.0) -> T:
    """Return what `look` gives once it gives something; for what no event announces."""
    until_s = time.monotonic() + within_s
    while not (seen := look()):
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.01)
    return seen
