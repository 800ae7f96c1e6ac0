"""`emberd serve` that waits for long for a lock that another process holds."""

from emberd import state
from emberd.cli.main import main as emberd

LOCK_S = 30.0


def main() -> None:
    """Run the command line."""
    state.LOCK_S = LOCK_S
    emberd()
