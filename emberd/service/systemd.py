"""Runs emberd as a systemd user unit.

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
            # Whatever holds the port may release it, so keep trying for minutes.
            "StartLimitIntervalSec=600",
            "StartLimitBurst=20",
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart=:{words}",  # the colon keeps a dollar sign in a path as it is
            "ExecReload=/bin/kill -HUP $MAINPID",
            *(f"Environment={_quoted(f'{name}={value}')}" for name, value in unit.environ.items()),
            "Restart=on-failure",
            "RestartSec=10",
            f"RestartPreventExitStatus={CONFIG_EXIT}",
            f"TimeoutStartSec={START_S}",
            f"TimeoutStopSec={STOP_S}",
            # Only the server gets TERM: it drains, and needs its workers for that.
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
        """Start it; systemctl returns once the server says that it is ready, or has failed."""
        _systemctl("daemon-reload")
        command.run(
            "systemctl", "--user", "reset-failed", NAME
        )  # otherwise the limit of starts may apply
        _systemctl("enable", NAME)
        _systemctl("restart", NAME)

    def stop(self) -> None:
        """Stop and disable it."""
        command.run("systemctl", "--user", "disable", NAME)  # fails if there is no such unit
        command.run("systemctl", "--user", "stop", NAME)
        command.run("systemctl", "--user", "reset-failed", NAME)
        if self.status().pid:
            raise ServiceError(
                "The service did not stop.", hint=f"See `systemctl --user status {NAME}`."
            )

    def restart(self) -> None:
        """Restart it, and return once it is ready."""
        command.run("systemctl", "--user", "reset-failed", NAME)
        _systemctl("restart", NAME)

    def forget(self) -> None:
        """Let systemd notice that the file has gone."""
        _systemctl("daemon-reload")

    def last_words(self) -> str:
        """Ask the journal."""
        return command.run(*journal(lines=5), "--output=cat").stdout

    def logout_hint(self) -> str | None:
        """Return how to keep the service running after a logout, if that is not set up yet."""
        done = command.run("loginctl", "show-user", "--property=Linger", "--value")
        if done.stdout == "yes":
            return None
        return "The service ends when you log out; `loginctl enable-linger` keeps it running."


def journal(*, lines: int) -> list[str]:
    """Return the command that prints what the service wrote to stderr, or nothing if it did not."""
    return ["journalctl", "--user", f"--unit={NAME}", f"--lines={lines}", "--no-pager", "--quiet"]


def _units_folder() -> Path:
    """Return where this user's units are: systemd's answer, which may differ from this shell's."""
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
    """Quote a word so that systemd reads it literally."""
    if not word.isprintable():
        raise ServiceError(f"A unit file cannot contain {word!r}.", hint="Rename that file.")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
