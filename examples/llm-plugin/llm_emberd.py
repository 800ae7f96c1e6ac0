"""A plugin of `llm`: each embedding model of a running emberd is `emberd/NAME` there."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import llm
import llm.models

HERE = "http://127.0.0.1:8767"


def ask(path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
    """Return the server's answer; `llm keys set emberd-url` or `LLM_EMBERD_URL` say where it is."""
    base = llm.get_key(alias="emberd-url", env="LLM_EMBERD_URL") or HERE
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(  # noqa: S310 - the user's own server
        base + path, data, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            answered: dict[str, Any] = json.load(answer)
            return answered
    except urllib.error.HTTPError as error:
        raise llm.ModelError(json.load(error)["error"]["message"]) from None


class EmberdModel(llm.models.EmbeddingModel):
    """A model of emberd."""

    batch_size = 100

    def __init__(self, name: str) -> None:
        self.model_id = f"emberd/{name}"
        self._name = name

    def embed_batch(
        self, items: Iterable[str | bytes], key: str | None = None
    ) -> Iterator[list[float]]:
        """Embed up to `batch_size` texts in one request."""
        del key
        answer = ask("/v1/embeddings", {"model": self._name, "input": list(items)})
        return (each["embedding"] for each in answer["data"])


@llm.hookimpl
def register_embedding_models(register: Callable[[EmberdModel], None]) -> None:
    """Register the models of the server; none if no server is running."""
    try:
        models = ask("/models")["models"]
    except OSError:
        return
    for each in models:
        if each["kind"] == "embed":
            register(EmberdModel(each["name"]))
