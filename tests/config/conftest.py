"""Write a config file in a test, and load it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from emberd.config.document import Keys
from emberd.config.load import Config, load_config

Load = Callable[..., Config]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write `text` as the config file and load it; nothing of the machine's environment is seen."""

    def write_and_load(
        text: str | bytes,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[Keys, Any] | None = None,
    ) -> Config:
        file = tmp_path / "config.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        home = {"HOME": str(tmp_path), "EMBERD_HOME": str(tmp_path)}
        return load_config(environ={**home, **(environ or {})}, flags=flags)

    return write_and_load
