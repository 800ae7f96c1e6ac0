"""Whether the service is installed, and how it is doing."""

from emberd.errors import ConfigError, ServiceError
from emberd.service.install import find_manager
from emberd.verify.finding import Finding


def service() -> list[Finding]:
    """Ask the service manager."""
    try:
        manager = find_manager()
    except (ConfigError, ServiceError) as error:
        return [Finding("service", "skipped", error.message)]
    installed = manager.file.exists()
    try:
        status = manager.status()
    except ServiceError as error:
        if not installed:
            detail = f"not installed, and not possible from here: {manager.name} cannot be reached"
            return [Finding("service", "skipped", detail)]
        return [Finding("service", "failed", error.message, error.hint or "")]
    if not installed:
        return [Finding("service", "ok", "not installed; `emberd service install` installs it")]
    detail = f"{status.state}, by {manager.name}"
    if status.pid:
        detail += f" (pid {status.pid})"
    elif status.last_exit:
        detail += f", last exit code {status.last_exit}"
    if status.state in ("running", "starting"):
        return [Finding("service", "ok", detail)]
    advice = "See `emberd service logs`, then run `emberd service install` again."
    return [Finding("service", "failed", detail, advice)]
