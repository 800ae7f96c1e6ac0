"""How the service is, where one was installed."""

from emberd.errors import ServiceError
from emberd.service.install import find_manager
from emberd.verify.finding import Finding


def service() -> list[Finding]:
    """Ask the service manager."""
    try:
        manager = find_manager()
    except ServiceError as error:
        return [Finding("service", "skipped", error.message)]
    if not manager.file.exists():
        return [Finding("service", "ok", "not installed; `emberd service install` does it")]
    try:
        status = manager.status()
    except ServiceError as error:
        return [Finding("service", "failed", error.message, error.hint or "")]
    detail = f"{status.state}, by {manager.name}"
    if status.pid:
        detail += f" (pid {status.pid})"
    elif status.last_exit:
        detail += f", last exit code {status.last_exit}"
    if status.state in ("running", "starting"):
        return [Finding("service", "ok", detail)]
    advice = "Look at `emberd service logs`, then run `emberd service install` again."
    return [Finding("service", "failed", detail, advice)]
