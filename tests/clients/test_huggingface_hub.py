"""Hugging Face's InferenceClient, as it speaks to text-embeddings-inference."""

import asyncio
from importlib import metadata

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.clients.table import Client
from tests.serving import Server

CLIENT = Client("TEI", "huggingface_hub", metadata.version("huggingface_hub"))
TEXTS = ["first", "", "第三"]


@pytest.fixture(params=["", "/", "/embed"])
def client(request: pytest.FixtureRequest, offering: Server) -> InferenceClient:
    """The client with each address that people give it."""
    return InferenceClient(model=f"{offering.url}{request.param}")


@pytest.fixture
def root(offering: Server) -> InferenceClient:
    """The client with the server's address."""
    return InferenceClient(model=offering.url)


def expected(server: Server, *texts: str, **options: object) -> bytes:
    """Return the vectors of the native route, as float32."""
    return np.array(server.embed(*texts, **options)["embeddings"], "<f4").tobytes()


def test_it_embeds(client: InferenceClient, offering: Server) -> None:
    rows = client.feature_extraction(TEXTS)

    assert (rows.shape, str(rows.dtype)) == ((3, 384), "float32")
    assert rows.tobytes() == expected(offering, *TEXTS)


def test_it_embeds_asynchronously(offering: Server) -> None:
    async def ask() -> bytes:
        async with AsyncInferenceClient(model=offering.url) as client:
            return bytes((await client.feature_extraction("first")).tobytes())

    assert asyncio.run(ask()) == expected(offering, "first")


def test_its_options_are_understood(root: InferenceClient, offering: Server) -> None:
    small = root.feature_extraction("cats", dimensions=128)
    prompted = root.feature_extraction("cats", prompt_name="query", truncation_direction="right")
    own = root.feature_extraction("cats", normalize=False, truncate=True)

    assert small.tobytes() == expected(offering, "cats", dimensions=128)
    assert prompted.tobytes() == expected(offering, "hello cats")
    assert np.linalg.norm(own) > 1.1


def test_its_errors_say_what_to_do(root: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        root.feature_extraction("b " * 600, truncate=False)

    assert caught.value.response.status_code == 422
    assert "Text 0 has 602 tokens" in caught.value.response.json()["error"]
