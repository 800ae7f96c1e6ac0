"""The recipe in docs/python-client.md, run to the letter with a re-ranker that tests have."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rerankers import FOLDER
from tests.serving import Server, clean_environ

PAGE = Path(__file__).parents[2] / "docs" / "python-client.md"
CONFIG = f"""
models:
  ms-marco-minilm: {{sources: [{{path: {FOLDER}}}], compute: f32, max_tokens: 40}}
"""


@pytest.fixture(scope="module")
def recipe() -> str:
    section = PAGE.read_text().partition("## Search by words and by vectors, then re-rank\n")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def test_it_runs_and_prints_the_best_three(home: Path, recipe: str) -> None:
    with Server(home, config=CONFIG):
        done = subprocess.run(
            [sys.executable, "-c", recipe],
            env=clean_environ(home), capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    lines = [re.fullmatch(r"([01]\.\d{3})  (.+)", line) for line in done.stdout.splitlines()]
    assert len(lines) == 3 and all(lines)
    scores = [float(line[1]) for line in lines if line]
    assert scores == sorted(scores, reverse=True)
    assert all(line and f'"{line[2]}",' in recipe for line in lines)
