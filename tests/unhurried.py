"""emberd whose doctor waits for long: `python -m tests.unhurried COMMAND...`.

Its limits are for people who wait; on a machine that is busy, what is asked may take longer.
"""

from unittest import mock

from emberd.cli.main import main as run_emberd
from emberd.doctor import backends, examine, network

PROBE_S, HEALTH_S, ALL_S = 120.0, 10.0, 150.0


def main() -> None:
    """Run the command."""
    with (
        mock.patch.object(backends, "LIMIT_S", PROBE_S),
        mock.patch.object(network, "HEALTH_TIMEOUT_S", HEALTH_S),
        mock.patch.dict(examine.examine.__kwdefaults__, limit_s=ALL_S),
    ):
        run_emberd()


if __name__ == "__main__":
    main()
