"""`python -m emberd`, and the command `emberd`."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it quietly even while it is still being imported."""
    try:
        from emberd.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
