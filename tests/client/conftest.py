"""What a library leaves behind is collected where it is left."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def collected() -> Iterator[None]:
    """For a test that cannot connect: httpcore leaves that socket to the garbage collector.

    If it came by later, in another test, the warning would fail that one.
    """
    yield
    gc.collect()
