"""`emberd serve` that logs whenever its own process lists a folder called `model`."""

import sys
from pathlib import Path

from emberd.cli.main import main as emberd

LOOKED = "looked into the folder of a model"


def main() -> None:
    """Run the command line."""
    sys.addaudithook(_note)
    emberd()


def _note(event: str, about: tuple[object, ...]) -> None:
    if event in ("os.scandir", "os.listdir") and Path(str(about[0])).name == "model":
        sys.stderr.write(f"{LOOKED}\n")
