"""emberd with resource limits of its own: `python -m tests.limited LIMITS COMMAND...`.

LIMITS is JSON, `{"NUMBER OF A RESOURCE": most}`; the processes that it starts inherit them.
"""

import json
import resource
import sys

from emberd.cli.main import main as run_emberd


def main() -> None:
    """Set the limits, soft and hard, and run the command."""
    limits = json.loads(sys.argv.pop(1))
    for number, most in limits.items():
        resource.setrlimit(int(number), (most, most))
    run_emberd()


if __name__ == "__main__":
    main()
