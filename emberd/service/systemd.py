"""emberd as a systemd user unit.

Sources: the manual pages systemd.service(5), systemd.exec(5), systemd.syntax(7), systemctl(1).
"""

import re
from pathlib import Path

from emberd.config.paths import config_folders
from emberd.errors import ServiceError
from emberd.service import command
from emberd.service.unit import CONFIG_EXIT, START_S, STOP_S, RunState, Status, Unit

NAME = "emberd.service"
ASK_S = 5.0
STATES: dict[str, RunState] = {
    "active": "running",
    "reloading": "running",
    "activating": "starting",
    "deactivating": "stopped",
    "inactive": "stopped",
    "failed": "failed",
}


class Systemd:
    """The user's own manager, `systemctl --user`; see `unit.Manager`."""

    name = "systemd"

    def __init__(self) -> None:
        self.file = _units_folder() / NAME

    def render(self, unit: Unit) -> bytes:
        """Return the unit file."""
        words = " ".join(_quoted(word) for word in unit.argv)
        lines = [
            "# Written by `emberd service install`, which overwrites changes.",
            "[Unit]",
            "Description=emberd, a local embedding server",
            # What holds the port may let go of it: try for minutes before it is final.
            "StartLimitIntervalSec=600",
            "StartLimitBurst=20",
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart=:{words}",  # the colon: a dollar in a path is a dollar
            "ExecReload=/bin/kill -HUP $MAINPID",
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in unit.environ.items()),
            "Restart=on-failure",
            "RestartSec=10",
            f"RestartPreventExitStatus={CONFIG_EXIT}",
            f"TimeoutStartSec={START_S}",
            f"TimeoutStopSec={STOP_S}",
            # TERM for the server alone: it drains, and needs its workers for that.
            "KillMode=mixed",
            # A worker that is killed for its memory costs one model a second, not the service.
            "OOMPolicy=continue",
            "UMask=0077",
            "",
            "[Install]",
            "WantedBy=default.target",
        ]
        return ("\n".join(lines) + "\n").encode()

    def status(self) -> Status:
        """Ask `systemctl show`."""
        properties = "ActiveState,SubState,MainPID,ExecMainStatus,ExecMainExitTimestampMonotonic"
        done = _systemctl("show", NAME, f"--property={properties}")
        shown = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
        state = STATES.get(shown.get("ActiveState", ""), "stopped")
        if shown.get("SubState") == "auto-restart":
            state = "failed"
        if not self.file.exists() and state == "stopped":
            state = "not installed"
        exited = shown.get("ExecMainExitTimestampMonotonic", "0") != "0"
        return Status(
            state=state,
            pid=int(shown.get("MainPID") or 0) or None,
            last_exit=int(shown.get("ExecMainStatus") or 0) if exited else None,
        )

    def start(self) -> None:
        """Start it; systemd returns when the server has said that it is ready, or has failed."""
        _systemctl("daemon-reload")
        command.run("systemctl", "--user", "reset-failed", NAME)  # else a limit of starts may hold
        _systemctl("enable", NAME)
        _systemctl("restart", NAME)

    def stop(self) -> None:
        """Stop and disable it."""
        command.run("systemctl", "--user", "disable", NAME)  # says no when there is no such unit
        command.run("systemctl", "--user", "stop", NAME)
        command.run("systemctl", "--user", "reset-failed", NAME)
        if self.status().pid:
            raise ServiceError(
                "The service did not stop.", hint=f"See `systemctl --user status {NAME}`."
            )

    def restart(self) -> None:
        """Restart it; returns when it is ready."""
        command.run("systemctl", "--user", "reset-failed", NAME)
        _systemctl("restart", NAME)

    def forget(self) -> None:
        """Let systemd notice that the file has gone."""
        _systemctl("daemon-reload")

    def last_words(self) -> str:
        """Ask the journal."""
        return command.run(*journal(lines=5), "--output=cat").stdout

    def logout_hint(self) -> str | None:
        """Return what to do so that the service survives a logout, if that is not done yet."""
        done = command.run("loginctl", "show-user", "--property=Linger", "--value")
        if done.stdout == "yes":
            return None
        return "It ends when you log out; `loginctl enable-linger` lets it run on."


def journal(*, lines: int) -> list[str]:
    """Return the command that shows what the service wrote to stderr; it is silent without any."""
    return ["journalctl", "--user", f"--unit={NAME}", f"--lines={lines}", "--no-pager", "--quiet"]


def _units_folder() -> Path:
    """Return where this user's units are: systemd's own answer, which this shell need not share."""
    ours = config_folders()
    try:
        ask = ("systemctl", "--user", "show", "--property=UnitPath", "--value")
        shown = command.run(*ask, timeout_s=ASK_S).stdout
    except ServiceError:
        shown = ""
    for folder in map(Path, shown.split()):
        # Not `user.control`, which comes first and is systemd's own.
        if folder.name == "user" and any(map(folder.is_relative_to, ours)):
            return folder
    return ours[0] / "systemd/user"


def _systemctl(*words: str) -> command.Done:
    try:
        return command.must("systemctl", "--user", *words)
    except ServiceError as error:
        if re.search(r"connect to .*\bbus\b", error.message):  # the words differ by version
            error.hint = (
                "This shell has no session with systemd: log in as this user directly (not by su"
                " or sudo), or run `loginctl enable-linger` and log in again."
            )
        raise


def _quoted(word: str) -> str:
    """Write a word so that systemd reads it as it is."""
    if not word.isprintable():
        raise ServiceError(f"A unit file cannot hold {word!r}.", hint="Rename that file.")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
