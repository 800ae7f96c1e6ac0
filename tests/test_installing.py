"""The pip commands in hints work for the Python that runs emberd, however it was installed."""

import shlex
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import emberd
from emberd import installing

ROOT = Path(emberd.__file__).parent.parent


@pytest.mark.slow
@pytest.mark.parametrize("with_pip", [True, False], ids=["pip", "uv"])
def test_the_command_names_the_python_that_runs_emberd(tmp_path: Path, with_pip: bool) -> None:
    folder = tmp_path / "it's a place"
    venv.create(folder, with_pip=with_pip)
    python = folder / "bin" / "python"
    program = "from emberd.installing import pip; print(pip('install', 'a[b]', 'c'))"

    said = subprocess.run(
        [python, "-c", program], capture_output=True, cwd=ROOT, text=True, check=True
    ).stdout

    ways = {
        True: [str(python), "-m", "pip", "install", "a[b]", "c"],
        False: ["uv", "pip", "install", "--python", str(python), "a[b]", "c"],
    }
    assert shlex.split(said) == ways[with_pip]


@pytest.mark.slow
def test_the_command_can_be_typed() -> None:
    done = subprocess.run(installing.pip("list", "--format=json"), shell=True, capture_output=True)  # noqa: S602

    assert done.returncode == 0
    assert b"emberd" in done.stdout


def test_no_hint_names_a_pip_of_somebody_else() -> None:
    texts = {path: path.read_text() for path in (ROOT / "emberd").rglob("*.py")}

    assert [str(path) for path, text in texts.items() if "`pip " in text] == []
    assert sys.executable in installing.pip("install")
