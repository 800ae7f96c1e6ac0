"""What every service manager is asked to run, and the interface they share."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

START_S = 60  # for a Python that starts from a slow disk
STOP_S = 45  # longer than `emberd serve` needs to drain and to end its workers
CONFIG_EXIT = 78  # EX_CONFIG of sysexits.h: trying again does not help

RunState = Literal["not installed", "stopped", "starting", "running", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A command with absolute paths, its environment, and the file for its stderr."""

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    stderr: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the manager says; `failed` includes waiting for a restart after a failure."""

    state: RunState
    pid: int | None = None
    last_exit: int | None = None


class Manager(Protocol):
    """A service manager that knows one service. All methods raise `ServiceError`."""

    name: str
    file: Path

    def render(self, unit: Unit) -> bytes:
        """Return the content of the unit's file."""
        ...

    def status(self) -> Status:
        """Return the status of the service."""
        ...

    def start(self) -> None:
        """Read the file again, start the service, and start it at every login from now on."""
        ...

    def stop(self) -> None:
        """Stop the service, now and at login, and return once its process is gone."""
        ...

    def restart(self) -> None:
        """Stop and start again."""
        ...

    def forget(self) -> None:
        """Make the manager notice that the file is gone."""
        ...

    def last_words(self) -> str:
        """Return the last lines that the service wrote to stderr, as far as they can be read."""
        ...

    def logout_hint(self) -> str | None:
        """Return how to keep the service running after a logout, if that is not set up yet."""
        ...
