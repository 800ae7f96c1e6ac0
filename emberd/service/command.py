"""The one place that runs a service manager's command."""

import shlex
import shutil
import subprocess
from dataclasses import dataclass

from emberd.errors import ServiceError

TIMEOUT_S = 120.0  # above START_S and STOP_S, for which `systemctl` waits


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a command that ended."""

    code: int
    stdout: str
    stderr: str


def exists(name: str) -> bool:
    """Say whether a command is on this machine."""
    return shutil.which(name) is not None


def run(*argv: str, timeout_s: float = TIMEOUT_S) -> Done:
    """Run a command to its end, whatever its exit code.

    Raises:
        ServiceError: it cannot be run, or does not end.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the words are ours
            argv,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServiceError(f"`{shlex.join(argv)}` cannot be run: {error}.") from None
    return Done(done.returncode, done.stdout.strip(), done.stderr.strip())


def must(*argv: str) -> Done:
    """Run a command that must succeed. Raises ServiceError."""
    done = run(*argv)
    if done.code:
        said = (done.stderr or done.stdout).partition("\n")[0]
        raise ServiceError(
            f"`{shlex.join(argv)}` failed with exit code {done.code}: {said or 'no output'}"
        )
    return done
