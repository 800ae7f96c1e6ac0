"""How to ask for vectors in each dialect, and where to find what in its answers and errors."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np

from emberd.vectors import Matrix


@dataclass(frozen=True, slots=True)
class Way:
    """One way to ask: a path, the key of the texts, further options, and where vectors are."""

    path: str
    texts: str
    options: Mapping[str, Any]
    found: str  # in the answer: a key, `data` for OpenAI's rows, nothing for a bare list
    error_keys: frozenset[str]

    def ask(self, http: httpx2.Client, texts: object, **options: object) -> httpx2.Response:
        """Send a request."""
        return http.post(self.path, json={self.texts: texts, **self.options, **options})

    def rows(self, answer: Any) -> Matrix:  # noqa: ANN401 - whatever JSON holds
        """Return the vectors of an answer, `(N, D)`, with exactly the bits that were sent."""
        found = answer[self.found] if self.found else answer
        if isinstance(found, dict):
            (found,) = found.values()  # Cohere's: by type
        if self.found == "data":
            assert [row["index"] for row in found] == list(range(len(found)))
            found = [row["embedding"] for row in found]
        if self.found == "embedding":
            found = [found]
        return np.stack([as_row(row) for row in found])

    def message(self, error: Any) -> str:  # noqa: ANN401 - whatever JSON holds
        """Return the message of an error, which has to have this dialect's shape."""
        assert set(error) == self.error_keys
        if "message" in error:
            return str(error["message"])
        if "detail" in error:
            return f"{error['detail']} {error['hint']}"
        if isinstance(error["error"], str):
            return error["error"]
        assert set(error["error"]) == {"message", "type", "param", "code"}
        return str(error["error"]["message"])


def as_row(row: list[float] | str) -> Matrix:
    """Return one vector: decimals, or base64 of float32."""
    return (
        np.frombuffer(base64.b64decode(row), "<f4")
        if isinstance(row, str)
        else np.array(row, "<f4")
    )


NATIVE = frozenset({"detail", "code", "hint"})
ERROR = frozenset({"error"})
COHERE = frozenset({"message"})
TEI = frozenset({"error", "error_type"})
WAYS = {
    "native": Way("/embed", "texts", {}, "embeddings", NATIVE),
    "native base64": Way("/embed", "texts", {"encoding": "base64"}, "embeddings", NATIVE),
    "OpenAI": Way("/v1/embeddings", "input", {}, "data", ERROR),
    "OpenAI base64": Way("/v1/embeddings", "input", {"encoding_format": "base64"}, "data", ERROR),
    "OpenAI without /v1": Way("/embeddings", "input", {}, "data", ERROR),
    "Ollama": Way("/api/embed", "input", {}, "embeddings", ERROR),
    "Cohere": Way("/v2/embed", "texts", {}, "embeddings", COHERE),
    "Cohere base64": Way(
        "/v2/embed", "texts", {"embedding_types": ["base64"]}, "embeddings", COHERE
    ),
    "Cohere v1": Way("/v1/embed", "texts", {}, "embeddings", COHERE),
    "Cohere v1 by type": Way(
        "/v1/embed", "texts", {"embedding_types": ["float"]}, "embeddings", COHERE
    ),
    "TEI": Way("/embed", "inputs", {}, "", TEI),
    "TEI at the root": Way("/", "inputs", {"normalize": True}, "", TEI),
}
ONE_OF_EACH = {
    name: WAYS[name]
    for name in ("native", "OpenAI", "Ollama", "Cohere", "Cohere v1", "TEI", "TEI at the root")
}
