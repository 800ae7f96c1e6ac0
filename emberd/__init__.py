"""emberd: a local embedding server with many models, which really gives memory back.

`emberd.Client` and `emberd.AsyncClient` are imported when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emberd.client.answers import (
        Chunk,
        Chunks,
        Embeddings,
        Ranking,
        SparseEmbeddings,
        SparseVector,
        Usage,
    )
    from emberd.client.clients import AsyncClient, Client
    from emberd.ranking import Ranked

__version__ = "0.1.0"
__all__ = [
    "AsyncClient", "Chunk", "Chunks", "Client", "Embeddings", "Ranked", "Ranking",
    "SparseEmbeddings", "SparseVector", "Usage", "__version__",
]  # fmt: skip
_HOMES = {
    "AsyncClient": "emberd.client.clients",
    "Chunk": "emberd.client.answers",
    "Chunks": "emberd.client.answers",
    "Client": "emberd.client.clients",
    "Embeddings": "emberd.client.answers",
    "Ranked": "emberd.ranking",
    "Ranking": "emberd.client.answers",
    "SparseEmbeddings": "emberd.client.answers",
    "SparseVector": "emberd.client.answers",
    "Usage": "emberd.client.answers",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class of the client
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'emberd' has no attribute {name!r}")
