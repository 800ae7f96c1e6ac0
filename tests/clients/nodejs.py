"""Scripts for Node, with the packages of node/package.json beside them."""

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "node"
PINNED: dict[str, str] = json.loads((FOLDER / "package.json").read_text())["dependencies"]


def install() -> None:
    """Install what package-lock.json names, unless it is there; into a folder git ignores."""
    for tool in ("node", "npm"):
        assert shutil.which(tool), f"{tool} is missing: install Node.js 20 or later to run this."
    with (FOLDER / "package.json").open() as pinned:
        fcntl.flock(pinned, fcntl.LOCK_EX)  # tests run in several processes; `npm ci` empties first
        if all(installed(name) == version for name, version in PINNED.items()):
            return
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        made = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=300)
        assert made.returncode == 0, made.stderr


def installed(name: str) -> str | None:
    """Return the version of a package that is there."""
    path = FOLDER / "node_modules" / name / "package.json"
    return json.loads(path.read_text())["version"] if path.is_file() else None


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a script that writes a line of JSON for each thing it has to say."""
    return subprocess.Popen(
        ["node", script, *arguments],  # noqa: S607 - whichever Node there is
        cwd=FOLDER,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(script: str, *arguments: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Run a script to its end and return the one thing it said."""
    with start(script, *arguments) as process:
        said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(said)
