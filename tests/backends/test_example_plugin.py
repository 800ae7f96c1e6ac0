"""The example in `examples/backend-plugin`, installed as its README says and used by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "backend-plugin"

USE = """
import sys
from pathlib import Path
import numpy as np
from emberd.backends import plugins
from emberd.backends.base import LoadRequest

assert "numpy" in plugins.names() and "emberd_numpy" not in sys.modules
folder = Path(sys.argv[1])
encoder = plugins.load("numpy").load(LoadRequest(
    folder=folder, pooling="mean", precision="f32", compute="auto", cache=folder, cache_key="",
))
ids = np.array([[101, 7592, 102]], np.int32)
print(encoder.encode(ids, np.ones_like(ids)).shape)
"""


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with the plugin installed in a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, str(target), str(EXAMPLE)], check=True
    )
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(target), str(ROOT)])}


def test_it_is_found_and_used_by_name(environ: dict[str, str], minilm: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", USE, str(minilm)],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert child.stdout == "(1, 384)\n"


@pytest.mark.slow
def test_its_own_test_passes(environ: dict[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_emberd_numpy.py"],
        env=environ,
        cwd=EXAMPLE,
        check=True,
    )
