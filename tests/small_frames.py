"""emberd whose frames hold at most 1 MiB of texts: `python -m tests.small_frames COMMAND...`."""

from emberd.cli.main import main as run_emberd
from emberd.worker import wire


def main() -> None:
    """Lower the limit in this process only, and run the command."""
    wire.MAX_HEADER_BYTES = 2**20
    run_emberd()


if __name__ == "__main__":
    main()
