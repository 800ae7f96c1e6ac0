"""Ways to read a large store less often, for the kinds that have them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from emberd.stores.base import Key, Store


@contextmanager
def watched(store: Store) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether anybody may have written to a store since: yes.

    A kind that knows better has a method `watching`, such a context manager; what the function
    says must never be no when it is yes.
    """
    own: Callable[[], AbstractContextManager[Callable[[], bool]]] | None
    own = getattr(store, "watching", None)
    if own is None:
        yield lambda: True
        return
    with own() as is_written_to:
        yield is_written_to


def search_all(store: Store, vectors: Sequence[bytes], count: int) -> Sequence[Sequence[Key]]:
    """Return what `search` finds for each vector.

    A kind without an index has a method `search_all`, which reads all rows once.
    """
    own: Callable[[Sequence[bytes], int], Sequence[Sequence[Key]]] | None
    own = getattr(store, "search_all", None)
    if own is None or not vectors:
        return [store.search(vector, count) for vector in vectors]
    found: Sequence[Sequence[Key]] = own(vectors, count)
    return found
