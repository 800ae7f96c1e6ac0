"""LangChain's clients, LiteLLM or Voyage's, against a server: the same vectors as the native route.

Runs in the environment that `apart.py` makes, where nothing of emberd is.
"""

import asyncio
import json
import os
import sys
import urllib.request
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

TEXTS = ["first", "", "第三"]


def made(name: str, url: str) -> Any:  # noqa: ANN401 - its types are not here
    """Return LangChain's object as its users make it."""
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
    if name == "langchain-cohere":
        return import_module("langchain_cohere").CohereEmbeddings(
            model="minilm", base_url=url, cohere_api_key="any"
        )
    return import_module("langchain_huggingface").HuggingFaceEndpointEmbeddings(
        model="sentence-transformers/all-MiniLM-L6-v2",  # it takes an address only further down
        model_kwargs={"model": url},
    )


def native(url: str, *texts: str, **options: object) -> list[list[float]]:
    """Return the vectors of the native route."""
    asked = urllib.request.Request(  # noqa: S310 - the server that was just started
        f"{url}/embed",
        json.dumps({"texts": texts, **options}).encode(),
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


def langchain(name: str, url: str) -> None:
    """Raise when anything is amiss."""
    embeddings = made(name, url)
    role = {"input_type": "query"} if name == "langchain-cohere" else {}  # which it sends
    assert near(embeddings.embed_documents(TEXTS), native(url, *TEXTS))
    assert near([embeddings.embed_query("first")], native(url, "first", **role))
    assert near(asyncio.run(embeddings.aembed_documents(TEXTS)), native(url, *TEXTS))
    if name == "langchain-openai":
        decoded(url)
    if name == "langchain-ollama":
        refused = ""
        try:
            type(embeddings)(model="nobody", base_url=url, validate_model_on_init=True)
        except ValueError as error:
            refused = str(error)
        assert "all-MiniLM-L6-v2:latest" in refused


def decoded(url: str) -> None:
    """As it is made by default, it sends token ids; an entry that reads them is enough."""
    package = find_spec("litellm")  # carries the encoding's file, which tiktoken would download
    assert package and package.origin
    folder = Path(package.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    embeddings = import_module("langchain_openai").OpenAIEmbeddings(
        model="decodes", base_url=f"{url}/v1", api_key="any"
    )
    assert near(embeddings.embed_documents(TEXTS[::2]), native(url, *TEXTS[::2]))


def litellm(url: str) -> None:
    """Raise when anything is amiss: it speaks three of the dialects."""
    embedding = import_module("litellm").embedding
    for model, base in (
        ("openai/minilm", f"{url}/v1"),
        ("ollama/all-minilm", url),
        ("cohere/minilm", f"{url}/v2/embed"),
    ):
        answer = embedding(model=model, input=TEXTS, api_base=base, api_key="any")
        assert near([row["embedding"] for row in answer.data], native(url, *TEXTS)), model
        assert answer.usage.prompt_tokens > 0, model


def voyage(url: str) -> None:
    """Raise when anything is amiss: Voyage's own SDK, with another base URL."""
    package = import_module("voyageai")
    client = package.Client(api_key="any", base_url=f"{url}/v1")
    asked: dict[str, Any] = {"model": "minilm", "input_type": "document"}
    plain = client.embed(TEXTS, **asked)
    assert near(plain.embeddings, native(url, *TEXTS))
    assert plain.total_tokens > 0
    for dtype in ("float", "int8", "uint8", "binary", "ubinary"):  # the SDK asks for base64
        found = client.embed(TEXTS, output_dtype=dtype, output_dimension=128, **asked).embeddings
        expected = native(url, *TEXTS, output_dtype=dtype, dimensions=128)
        assert near(found, expected) if dtype == "float" else found == expected, dtype
        raw = package.Embedding.create(
            input=TEXTS, output_dtype=dtype, encoding_format="float", output_dimension=128,
            api_key="any", base_url=f"{url}/v1", **asked,
        )  # fmt: skip
        assert [row["embedding"] for row in raw.data] == expected, dtype
    query = client.embed(["first"], model="minilm", input_type="query", output_dtype="int8")
    assert query.embeddings == native(url, "first", input_type="query", output_dtype="int8")

    async def ask() -> Any:  # noqa: ANN401 - its types are not here
        return await package.AsyncClient(api_key="any", base_url=f"{url}/v1").embed(
            TEXTS, output_dtype="ubinary", **asked
        )

    assert asyncio.run(ask()).embeddings == native(url, *TEXTS, output_dtype="ubinary")
    for wrong, words in (({"output_dtype": "int4"}, "ubinary"), ({"model": "minlm"}, "minilm")):
        said = ""
        try:
            client.embed(TEXTS, **{**asked, **wrong})
        except package.error.VoyageError as error:
            said = str(error)
        assert words in said, said


if __name__ == "__main__":
    which, address = sys.argv[1:]
    if which == "litellm":
        litellm(address)
    elif which == "voyageai":
        voyage(address)
    else:
        langchain(which, address)
