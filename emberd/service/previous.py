"""Finds, stops and restores the server that emberd replaces.

It is `server.py`, run by uvicorn on the port that emberd takes over, as the LaunchAgent
`com.cmem.mlx-server` or by hand. Its /health has four fields; emberd's has those and more.
"""

import shlex
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from emberd.client.address import Address
from emberd.client.health import read_health
from emberd.errors import PortTakenError, ServiceError
from emberd.running import url_of
from emberd.service import command
from emberd.service.launchd import Agent
from emberd.service.port import Holder

LABEL = "com.cmem.mlx-server"
FOLDER = "mlx-server"
HEALTH_TIMEOUT_S = 10.0  # it answers no one while it computes
TERM_S, POLL_S = 10.0, 0.1
OLD_FIELDS = {"status", "model", "dimensions", "loaded"}


def is_old_server(health: dict[str, Any] | None) -> bool:
    """Return whether this /health is the old server's: it has these four fields and no others."""
    return health is not None and health.keys() == OLD_FIELDS


class Previous(Protocol):
    """An old server that is running, or would run at the next login."""

    def stop(self) -> None:
        """End it, for now."""
        ...

    def put_back(self) -> None:
        """Undo `stop`."""
        ...

    def retire(self) -> str:
        """Make `stop` permanent; return a sentence about what was done and how to go back."""
        ...


class PreviousAgent:
    """The old server as a LaunchAgent."""

    def __init__(self, agent: Agent, *, loaded: bool) -> None:
        self._agent = agent
        self._loaded = loaded

    def stop(self) -> None:
        """Unload it."""
        if self._loaded:
            self._agent.stop()

    def put_back(self) -> None:
        """Load it again, if it was."""
        if self._loaded:
            self._agent.start()

    def retire(self) -> str:
        """Disable it: at the next login it would take the port again."""
        self._agent.disable()
        target, file = self._agent.target, shlex.quote(str(self._agent.file))
        return (
            f"The old server ({self._agent.label}) was stopped and disabled; its files were kept."
            f" To go back: `emberd service uninstall`, then `launchctl enable {target}` and"
            f" `launchctl bootstrap {self._agent.domain} {file}`."
        )


class PreviousProcess:
    """The old server, started by hand or by its `start.sh`."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._argv = process.cmdline()
        self._folder = process.cwd()
        self._environ = process.environ()

    def stop(self) -> None:
        """TERM, then KILL."""
        for end in (self._process.terminate, self._process.kill):
            try:
                end()
            except psutil.NoSuchProcess:
                return
            except psutil.Error as error:
                raise ServiceError(f"The old server cannot be stopped: {error}.") from None
            until_s = time.monotonic() + TERM_S
            while time.monotonic() < until_s:
                if not self._runs():
                    return
                time.sleep(POLL_S)
        raise ServiceError(f"The old server (pid {self._process.pid}) did not stop.")

    def put_back(self) -> None:
        """Run the same command in the same folder, as a separate process."""
        if self._runs():
            return
        log = Path(self._folder, "server.log")
        try:
            with (log if log.exists() else Path("/dev/null")).open("ab") as output:
                subprocess.Popen(  # noqa: S603 - what ran before, as it ran
                    self._argv,
                    cwd=self._folder,
                    env=self._environ,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise ServiceError(
                f"The old server could not be started again: {error}.",
                hint=f"Run `{shlex.join(self._argv)}` in {shlex.quote(self._folder)}.",
            ) from None

    def _runs(self) -> bool:
        with suppress(psutil.NoSuchProcess):
            # A zombie has ended; it waits for the parent that started it.
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        return False

    def retire(self) -> str:
        """Return the sentence; there is nothing else to do."""
        return (
            f"The old server (pid {self._process.pid}) was stopped; its files were kept."
            f" To go back: `emberd service uninstall`, then `{shlex.join(self._argv)}` in"
            f" {shlex.quote(self._folder)}."
        )


def find(port: int, holder: Holder | None) -> list[Previous]:
    """Return every form of the old server that is in the way; nothing else is ever touched.

    Raises:
        PortTakenError: a process other than the old server is using the port.
    """
    found: list[Previous] = []
    agents_pid = None
    if command.exists("launchctl"):
        agent = Agent(LABEL)
        status = agent.status()
        if status.state != "not installed":
            agents_pid = status.pid
            found.append(PreviousAgent(agent, loaded=agent.shown() is not None))
    if holder and (holder.pid is None or holder.pid != agents_pid):
        process = _old_process(port, holder)
        if process is None:
            raise PortTakenError(
                f"Port {port} is used by {holder}, which is not the server that emberd replaces.",
                hint="Stop that process, or set another `server.port`.",
            )
        found.append(process)
    return found


def disabled_agent() -> Agent | None:
    """Return the old LaunchAgent if its file exists and it is not loaded."""
    if not command.exists("launchctl"):
        return None
    agent = Agent(LABEL)
    return agent if agent.status().state == "stopped" and agent.shown() is None else None


def _old_process(port: int, holder: Holder) -> PreviousProcess | None:
    """Return the holder if it is the old server: by its /health or, if it hangs, by its folder."""
    if holder.pid is None:
        return None
    try:
        process = psutil.Process(holder.pid)
        hung_old = Path(process.cwd()).name == FOLDER and "server" in " ".join(process.cmdline())
        health = read_health(Address(url_of("127.0.0.1", port)), timeout_s=HEALTH_TIMEOUT_S)
        return PreviousProcess(process) if hung_old or is_old_server(health) else None
    except psutil.Error:
        return None
