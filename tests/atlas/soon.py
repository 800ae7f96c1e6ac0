"""`emberd serve` whose maps end after a second without a request."""

from emberd.api import map_process
from emberd.cli.main import main as emberd

IDLE_S = 1.0


def main() -> None:
    """Run the command line."""
    map_process.IDLE_S = IDLE_S
    emberd()
