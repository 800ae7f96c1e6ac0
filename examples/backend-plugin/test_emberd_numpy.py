"""The plugin keeps emberd's contract for backends."""

from pathlib import Path

import pytest
from emberd_numpy import NumpyBackend

from emberd.backends.base import Pooling
from emberd.backends.conformance import check_backend
from emberd.backends.tiny_bert import TINY_DIMENSIONS, tiny_bert


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_it_keeps_every_promise(tmp_path: Path, pooling: Pooling) -> None:
    """Raises an AssertionError that names the promises which are broken."""
    tiny_bert(tmp_path)
    check_backend(NumpyBackend(), tmp_path, dimensions=TINY_DIMENSIONS, pooling=pooling)
