"""A server with shorter timeouts than usual: `python -m tests.impatient TIMEOUTS`, as JSON."""

import json
import sys

from emberd.config.live import LiveConfig
from emberd.config.load import Config, load_config
from emberd.server import run
from emberd.server.timeouts import Timeouts


def _read() -> Config:
    return load_config(flags={("server", "port"): 0})


def main() -> None:
    """Run the server of this home on a free port, until a signal."""
    run.serve(LiveConfig(_read(), _read), Timeouts(**json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
