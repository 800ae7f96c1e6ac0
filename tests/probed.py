"""emberd where the backends were tried before: `python -m tests.probed ANSWERS COMMAND...`.

ANSWERS is JSON: what `emberd.doctor.probe` answers, by name. Trying them takes a second each time.
"""

import json
import sys
from unittest import mock

from emberd.doctor import backends
from tests.unhurried import main as run_emberd


def main() -> None:
    """Run the command with these answers."""
    answers = json.loads(sys.argv.pop(1))
    with mock.patch.object(backends, "_probe", answers.__getitem__):
        run_emberd()


if __name__ == "__main__":
    main()
