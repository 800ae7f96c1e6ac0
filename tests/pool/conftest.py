"""Pools collect garbage whenever a model has left; here they need not look at the tests as well."""

import gc

import pytest


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """Keep what was collected and imported out of every later collection, as the server does."""
    gc.collect()
    gc.freeze()
