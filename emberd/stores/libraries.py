"""Libraries that only some kinds need; those are imported once a store of that kind is opened."""

from collections.abc import Iterator
from contextlib import contextmanager

from emberd.errors import StoreKindError
from emberd.installing import pip


@contextmanager
def needed_by(kind: str) -> Iterator[None]:
    """Import inside of it what needs the libraries of the extra that is called like the kind.

    Raises:
        StoreKindError: one is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise StoreKindError(
            f"A store of the kind {kind} is read with {error.name}, which is not installed.",
            hint=f"Run `{pip('install', f'emberd[{kind}]')}`.",
        ) from None
