"""Installs, restarts and uninstalls; whatever goes wrong, the machine is left as it was."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from emberd.errors import EmberdError, ServiceError
from emberd.replacing import replace_file
from emberd.service import command
from emberd.service.launchd import Launchd
from emberd.service.previous import Previous
from emberd.service.systemd import Systemd
from emberd.service.unit import START_S, Manager, Unit

POLL_S = 0.2
FAILED_FOR_S = 2.0  # a manager may show a false failure between two processes

Ready = Callable[[], bool]
"""Says whether the server answers `GET /ready` with 200."""


def find_manager() -> Manager:
    """Return this machine's service manager. Raises ServiceError if it has none that we know."""
    if command.exists("launchctl"):
        return Launchd()
    if command.exists("systemctl"):
        return Systemd()
    raise ServiceError(
        "This machine has neither launchd nor systemd.",
        hint="Have whatever starts programs on this machine run `emberd serve`.",
    )


def install(
    manager: Manager, unit: Unit, ready: Ready, previous: Iterable[Previous] = ()
) -> list[str]:
    """Write the unit and start it; return sentences about what else was done.

    Raises:
        ServiceError: it did not become ready. What was there before, a unit or an old server, has
            been restored, and started again if it was running.
    """
    before = manager.file.read_bytes() if manager.file.exists() else None
    ran = manager.status().state in ("running", "starting")
    stopped: list[Previous] = []
    try:
        if before is not None or ran:
            manager.stop()
        for old in previous:
            stopped.append(old)
            old.stop()
        unit.stderr.parent.mkdir(parents=True, exist_ok=True)
        _write(manager.file, manager.render(unit))
        manager.start()
        wait_until_ready(manager, ready)
    except BaseException as error:  # also leave the machine as it was after Ctrl-C
        words = ""
        with suppress(EmberdError):  # restoring is more important than these
            words = manager.last_words()
        lost = _roll_back(manager, before, stopped, ran=ran)
        if not isinstance(error, EmberdError | OSError):
            raise
        said = error.message if isinstance(error, EmberdError) else f"{error}."
        wrote = f"\nIt wrote:\n{words}" if words else ""
        raise ServiceError(
            f"The service was not installed: {said} {lost or 'All is as it was before.'}{wrote}",
            hint=getattr(error, "hint", None) or "Run `emberd doctor` to look for the cause.",
        ) from None
    return [old.retire() for old in stopped]


def _roll_back(
    manager: Manager, before: bytes | None, stopped: Iterable[Previous], *, ran: bool
) -> str:
    """Restore everything that can be; return sentences about what could not."""
    lost: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except (EmberdError, OSError) as error:
            lost.append(getattr(error, "message", f"{error}."))

    attempt(manager.stop)
    if before is None:
        attempt(lambda: manager.file.unlink(missing_ok=True))
        with suppress(EmberdError):
            manager.forget()
    else:
        attempt(lambda: _write(manager.file, before))
        if ran:
            attempt(manager.start)
    for old in stopped:
        attempt(old.put_back)
    return " ".join(lost)


def wait_until_ready(manager: Manager, ready: Ready, *, not_pid: int | None = None) -> None:
    """Wait until a process of the service other than `not_pid` answers. Raises ServiceError."""
    now_s = time.monotonic()
    until_s, fine_s = now_s + START_S, now_s
    while (now_s := time.monotonic()) < until_s:
        status = manager.status()
        if status.state == "running" and status.pid != not_pid and ready():
            return
        if status.state in ("running", "starting"):
            fine_s = now_s
        elif now_s - fine_s > FAILED_FOR_S:
            code = status.last_exit
            raise ServiceError(
                f"Its process ended with exit code {code}." if code else f"It is {status.state}.",
                hint="See `emberd service logs`.",
            )
        time.sleep(POLL_S)
    raise ServiceError(f"It was not ready after {START_S} s.", hint="See `emberd service logs`.")


def restart(manager: Manager, ready: Ready) -> None:
    """Restart the service, and return once its new process answers. Raises ServiceError."""
    before = manager.status()
    if before.state == "not installed":
        raise ServiceError("The service is not installed.", hint="Run `emberd service install`.")
    manager.restart()
    wait_until_ready(manager, ready, not_pid=before.pid)


def uninstall(manager: Manager) -> bool:
    """Stop the service and remove its file; return False if there was none. Raises ServiceError."""
    try:
        if manager.status().state == "not installed":
            return False
    except ServiceError:  # the manager does not answer, but without a file there is nothing to stop
        if manager.file.exists():
            raise
        return False
    manager.stop()
    manager.file.unlink(missing_ok=True)
    manager.forget()
    return True


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, content)
