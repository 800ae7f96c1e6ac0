"""Cohere's own SDK, changed in nothing but its base_url: both of its clients."""

import asyncio
import base64
import warnings
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from tests import rerankers
from tests.clients.table import Client
from tests.serving import Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its own modules warn of is no matter of ours
    import cohere
    from cohere import errors

# The SDK itself uses what pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")

CLIENT = Client("Cohere", "cohere (Python)", metadata.version("cohere"))
TEXTS = ["first", "", "第三"]
ROLE = "search_document"


@pytest.fixture
def second(offering: Server) -> Iterator[cohere.ClientV2]:
    """The client of its second API as everybody makes it; a key is needed and means nothing."""
    with cohere.ClientV2(api_key="any", base_url=offering.url) as made:
        yield made


@pytest.fixture
def first(offering: Server) -> Iterator[cohere.Client]:
    """That of its first API, which sends 96 texts at a time."""
    with cohere.Client(api_key="any", base_url=offering.url) as made:
        yield made


def bits(rows: Any) -> bytes:  # noqa: ANN401 - lists of lists, by whatever name
    """Return vectors as float32."""
    return np.array(rows, "<f4").tobytes()


def expected(server: Server, *texts: str, **options: object) -> bytes:
    """Return the vectors of the native route, as float32."""
    return bits(server.embed(*texts, **options)["embeddings"])


def test_its_second_api_embeds(second: cohere.ClientV2, offering: Server) -> None:
    answer = second.embed(model="minilm", texts=TEXTS, input_type=ROLE, embedding_types=["float"])
    plain = second.embed(model="minilm", texts=TEXTS, input_type=ROLE)

    assert bits(answer.embeddings.float_) == bits(plain.embeddings.float_)
    assert bits(answer.embeddings.float_) == expected(offering, *TEXTS)
    assert answer.texts == TEXTS
    assert answer.meta
    assert answer.meta.billed_units
    assert (answer.meta.billed_units.input_tokens or 0) > 0


def test_its_first_api_embeds_many(first: cohere.Client, offering: Server) -> None:
    texts = [f"text {number}" for number in range(200)]

    answer: Any = first.embed(texts=texts, model="minilm")

    assert answer.response_type == "embeddings_floats"
    assert np.array(answer.embeddings).shape == (200, 384)
    assert np.array(answer.embeddings[150]) @ np.array(
        offering.embed(texts[150])["embeddings"][0]
    ) == pytest.approx(1, abs=1e-4)


def test_its_first_api_embeds_by_type(first: cohere.Client, offering: Server) -> None:
    answer: Any = first.embed(texts=TEXTS, model="minilm", embedding_types=["float"])

    assert answer.response_type == "embeddings_by_type"
    assert bits(answer.embeddings.float_) == expected(offering, *TEXTS)


def test_it_embeds_asynchronously(offering: Server) -> None:
    async def ask() -> bytes:
        async with cohere.AsyncClientV2(api_key="any", base_url=offering.url) as client:
            answer = await client.embed(model="minilm", texts=TEXTS, input_type=ROLE)
        return bits(answer.embeddings.float_)

    assert asyncio.run(ask()) == expected(offering, *TEXTS)


def test_its_options_are_understood(second: cohere.ClientV2, offering: Server) -> None:
    asked = second.embed(model="minilm", texts=["cats"], input_type="search_query")
    small = second.embed(model="minilm", texts=TEXTS, input_type=ROLE, output_dimension=128)
    packed = second.embed(
        model="minilm", texts=["a"], input_type=ROLE, embedding_types=["base64"], truncate="END"
    )

    assert bits(asked.embeddings.float_) == expected(offering, "hello cats")
    assert bits(small.embeddings.float_) == expected(offering, *TEXTS, dimensions=128)
    assert packed.embeddings.base64
    assert base64.b64decode(packed.embeddings.base64[0]) == expected(offering, "a")


def test_its_smaller_types_are_the_same_vectors(second: cohere.ClientV2, offering: Server) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]

    answer = second.embed(model="minilm", texts=TEXTS, input_type=ROLE, embedding_types=kinds)

    by_type = answer.embeddings
    assert bits(by_type.float_) == expected(offering, *TEXTS)
    assert by_type.base64
    assert b"".join(map(base64.b64decode, by_type.base64)) == expected(offering, *TEXTS)
    for kind in kinds[1:-1]:
        asked = offering.embed(*TEXTS, output_dtype=kind)
        assert getattr(by_type, kind) == asked["embeddings"]


def test_a_name_with_a_role_says_what_its_input_type_says(
    second: cohere.ClientV2, first: cohere.Client, offering: Server
) -> None:
    answer = second.embed(model="minilm:query", texts=["cats"], input_type="search_query")
    silent: Any = first.embed(model="text-embedding-3-small", texts=["cats"])

    assert bits(answer.embeddings.float_) == expected(offering, "cats", input_type="query")
    assert bits(silent.embeddings) == expected(offering, "cats", input_type="query")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"embedding_types": ["int4"]}, errors.BadRequestError, "should be 'float', 'int8'"),
        ({"model": "minlm"}, errors.NotFoundError, "Did you mean minilm"),
        ({"model": "minilm:query"}, errors.BadRequestError, "role query, but document is asked"),
        ({"truncate": "START"}, errors.BadRequestError, "truncate: "),
        ({"input_type": "image"}, errors.BadRequestError, "input_type: should be"),
        (
            {"texts": ["b " * 600], "truncate": "NONE"},
            errors.UnprocessableEntityError,
            "Text 0 has 602 tokens",
        ),
    ],
)
def test_its_typed_errors_say_what_to_do(
    second: cohere.ClientV2, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        second.embed(**{"model": "minilm", "texts": TEXTS, "input_type": ROLE, **options})

    assert words in str(caught.value)


def places(answer: Any) -> list[int]:  # noqa: ANN401 - of either of its APIs
    """Return which texts came first, when their scores are right."""
    for row in answer.results:
        score = rerankers.sigmoid(rerankers.LOGITS[row.index])
        assert row.relevance_score == pytest.approx(score, abs=1e-4)
    return [row.index for row in answer.results]


def test_its_second_api_reranks(ranking: Server) -> None:
    asked: dict[str, Any] = {"model": "tiny", "query": rerankers.QUERY}
    with cohere.ClientV2(api_key="any", base_url=ranking.url) as client:
        answer = client.rerank(documents=rerankers.TEXTS, **asked)
        few = client.rerank(documents=rerankers.TEXTS, top_n=2, max_tokens_per_doc=512, **asked)
        with pytest.raises(errors.NotFoundError) as caught:
            client.rerank(documents=rerankers.TEXTS, **asked | {"model": "nobody"})

    assert places(answer) == rerankers.ORDER
    assert places(few) == rerankers.ORDER[:2]
    assert answer.meta
    assert answer.meta.tokens
    assert (answer.meta.tokens.input_tokens or 0) > len(rerankers.TEXTS)
    assert str(rerankers.LONG) in (answer.meta.warnings or [""])[0]
    assert "nobody" in str(caught.value)


def test_its_first_api_reranks(ranking: Server) -> None:
    asked: dict[str, Any] = {"model": "tiny", "query": rerankers.QUERY}
    objects: Any = [{"text": text, "title": "unused"} for text in rerankers.TEXTS]
    with cohere.Client(api_key="any", base_url=ranking.url) as client:
        answer = client.rerank(documents=rerankers.TEXTS, return_documents=True, **asked)
        few = client.rerank(documents=objects, rank_fields=["text"], top_n=2, **asked)
        with pytest.raises(errors.BadRequestError) as caught:
            client.rerank(documents=objects, rank_fields=["title"], **asked)

    assert places(answer) == rerankers.ORDER
    texts = [row.document.text for row in answer.results if row.document]
    assert texts == [rerankers.TEXTS[index] for index in rerankers.ORDER]
    assert places(few) == rerankers.ORDER[:2]
    assert "rank_fields" in str(caught.value)


def test_it_reranks_asynchronously(ranking: Server) -> None:
    async def ask() -> list[int]:
        async with cohere.AsyncClientV2(api_key="any", base_url=ranking.url) as client:
            return places(
                await client.rerank(model="tiny", query=rerankers.QUERY, documents=rerankers.TEXTS)
            )

    assert asyncio.run(ask()) == rerankers.ORDER
