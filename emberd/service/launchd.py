"""Runs emberd as a LaunchAgent on macOS.

Sources: the manual pages launchd.plist(5) and launchctl(1). `bootout` returns before the process is
gone, and a `bootstrap` at that moment fails with EIO, so this polls and tries once more.
"""

import os
import plistlib
import re
import time
from contextlib import suppress
from pathlib import Path
from xml.parsers.expat import ExpatError  # plistlib does not catch it

from emberd.config.paths import home_folder
from emberd.errors import ServiceError
from emberd.service import command
from emberd.service.unit import STOP_S, RunState, Status, Unit

LABEL = "emberd.server"
EIO = 5
POLL_S = 0.2
MANY_BYTES = 2**20
THROTTLE_S = 10  # launchd's own default, stated


class Agent:
    """Any LaunchAgent of this user, by label: starts it, stops it, and returns its status."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.file = home_folder() / "Library/LaunchAgents" / f"{label}.plist"
        self.domain = f"gui/{os.getuid()}"
        self.target = f"{self.domain}/{label}"

    def shown(self) -> str | None:
        """Return what launchd knows about it; None if it is not loaded."""
        done = command.run("launchctl", "print", self.target)
        return None if done.code else done.stdout

    def status(self) -> Status:
        """Read `launchctl print`; its outermost lines have one tab in front."""
        shown = self.shown()
        if shown is None:
            return Status(state="stopped" if self.file.exists() else "not installed")
        pid = re.search(r"^\tpid = (\d+)", shown, re.MULTILINE)
        exited = re.search(r"^\tlast exit code = (-?\d+)", shown, re.MULTILINE)
        last_exit = int(exited[1]) if exited else None
        state: RunState
        if pid:
            state = "running"
        elif last_exit is None:
            state = "starting"
        else:
            state = "failed" if last_exit else "stopped"
        return Status(state=state, pid=int(pid[1]) if pid else None, last_exit=last_exit)

    def start(self) -> None:
        """Load it; `RunAtLoad` then starts it, now and at every login."""
        command.run("launchctl", "enable", self.target)
        bootstrap = ("launchctl", "bootstrap", self.domain, str(self.file))
        if command.run(*bootstrap).code == EIO:
            time.sleep(1)
            command.must(*bootstrap)
        elif self.shown() is None:
            command.must(*bootstrap)

    def stop(self) -> None:
        """Unload it, and return once launchd has forgotten it."""
        until_s = time.monotonic() + STOP_S + 5
        command.run("launchctl", "bootout", self.target)
        while self.shown() is not None:
            if time.monotonic() > until_s:
                raise ServiceError(
                    f"{self.label} did not stop.", hint=f"See `launchctl print {self.target}`."
                )
            time.sleep(POLL_S)

    def disable(self) -> None:
        """Keep it from starting at the next login; its file stays."""
        command.must("launchctl", "disable", self.target)

    def restart(self) -> None:
        """End its process and start another."""
        if self.shown() is None:
            self.start()
        else:
            command.must("launchctl", "kickstart", "-k", self.target)


class Launchd(Agent):
    """emberd's own agent; see `unit.Manager`."""

    name = "launchd"

    def __init__(self) -> None:
        super().__init__(LABEL)

    def render(self, unit: Unit) -> bytes:
        """Return the property list."""
        return plistlib.dumps(
            {
                "Label": self.label,
                "ProgramArguments": list(unit.argv),
                "EnvironmentVariables": dict(unit.environ),
                "RunAtLoad": True,
                "KeepAlive": {"SuccessfulExit": False},
                "ThrottleInterval": THROTTLE_S,
                "ExitTimeOut": STOP_S,
                "ProcessType": "Interactive",  # unset, macOS slows it down
                "Umask": 0o077,
                "WorkingDirectory": "/",
                "StandardOutPath": str(unit.stderr),
                "StandardErrorPath": str(unit.stderr),
            },
            sort_keys=False,
        )

    def start(self) -> None:
        """Start it, after emptying its stderr file if that is large: launchd never rotates it.

        Only failures before logging begins are written there.
        """
        file = self._stderr_file()
        with suppress(OSError):
            if file and file.stat().st_size > MANY_BYTES:
                os.truncate(file, 0)
        super().start()

    def forget(self) -> None:
        """Do nothing: an agent that is not loaded is only its file."""

    def last_words(self) -> str:
        """Read the end of the file that its stderr goes to."""
        file = self._stderr_file()
        try:
            return "\n".join(file.read_text(errors="replace").splitlines()[-5:]) if file else ""
        except OSError:
            return ""

    def _stderr_file(self) -> Path | None:
        try:
            return Path(plistlib.loads(self.file.read_bytes())["StandardErrorPath"])
        except (OSError, ValueError, KeyError, ExpatError):
            return None

    def logout_hint(self) -> str | None:
        """Return None: an agent ends at logout and starts at login, as macOS users expect."""
        return None
