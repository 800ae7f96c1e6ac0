"""One of LangChain's embedding classes against a server: the same vectors as the native route.

Runs in the environment that `langchain_apart.py` makes, where nothing of emberd is.
"""

import asyncio
import json
import sys
import urllib.request
from importlib import import_module
from typing import Any

TEXTS = ["first", "", "第三"]


def made(name: str, url: str) -> Any:  # noqa: ANN401 - its types are not here
    """Return the object as its users make it."""
    if name == "langchain-openai":
        return import_module("langchain_openai").OpenAIEmbeddings(
            model="minilm",
            base_url=f"{url}/v1",
            api_key="any",
            check_embedding_ctx_length=False,  # or it sends another tokenizer's token ids
        )
    if name == "langchain-ollama":
        return import_module("langchain_ollama").OllamaEmbeddings(
            model="all-MiniLM-L6-v2", base_url=url, validate_model_on_init=True
        )
    return import_module("langchain_huggingface").HuggingFaceEndpointEmbeddings(
        model="sentence-transformers/all-MiniLM-L6-v2",  # it takes an address only further down
        model_kwargs={"model": url},
    )


def native(url: str, *texts: str) -> list[list[float]]:
    """Return the vectors of the native route."""
    asked = urllib.request.Request(  # noqa: S310 - the server that was just started
        f"{url}/embed",
        json.dumps({"texts": texts}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked) as answer:  # noqa: S310
        rows: list[list[float]] = json.load(answer)["embeddings"]
        return rows


def near(found: list[list[float]], expected: list[list[float]]) -> bool:
    """Whether the vectors are the same but for how decimals were read."""
    return all(
        abs(a - b) < 1e-7
        for one, other in zip(found, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def main(name: str, url: str) -> None:
    """Raise when anything is amiss."""
    embeddings = made(name, url)
    assert near(embeddings.embed_documents(TEXTS), native(url, *TEXTS))
    assert near([embeddings.embed_query("first")], native(url, "first"))
    assert near(asyncio.run(embeddings.aembed_documents(TEXTS)), native(url, *TEXTS))


if __name__ == "__main__":
    main(*sys.argv[1:])
