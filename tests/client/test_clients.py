"""The Python client with a real server: the same bits, the same errors, sync and async."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emberd
from emberd.errors import (
    BadOptionError,
    ConfigError,
    DeadlineError,
    FingerprintMismatchError,
    NoServerError,
    NoTextsError,
    TextTooLongError,
    TooLargeError,
    UnknownModelError,
    WrongShapeError,
)
from tests.serving import Server

TEXTS = ["first", "", "third 🙂"]


def test_vectors_are_those_of_the_server(server: Server) -> None:
    expected = server.embed(*TEXTS)

    with emberd.Client(server.url) as client:
        got = client.embed(TEXTS)

    assert got.vectors.dtype == np.float32
    assert got.vectors.tobytes() == np.array(expected["embeddings"], np.float32).tobytes()
    assert (got.model, got.fingerprint) == (expected["model"], expected["fingerprint"])
    assert got.vectors.flags.writeable


def test_a_name_with_a_role_is_as_good_as_input_type(server: Server) -> None:
    with emberd.Client(server.url) as client:
        named = client.embed(TEXTS, model="minilm:query")
        stated = client.embed(TEXTS, model="minilm", input_type="query")
        with pytest.raises(BadOptionError, match="role query, but document is asked for"):
            client.embed(TEXTS, model="minilm:query", input_type="document")

    assert named.vectors.tobytes() == stated.vectors.tobytes()
    assert (named.model, named.fingerprint) == (stated.model, stated.fingerprint)


def test_async_is_the_same(server: Server) -> None:
    async def ask() -> list[bytes]:
        async with emberd.AsyncClient(server.url) as client:
            assert (await client.health())["status"] == "ok"
            assert (await client.load())["state"] == "ready"
            assert "minilm" in [row["name"] for row in await client.models()]
            answers = await asyncio.gather(*(client.embed(TEXTS) for _ in range(8)))
            return [answer.vectors.tobytes() for answer in answers]

    with emberd.Client(server.url) as client:
        assert set(asyncio.run(ask())) == {client.embed(TEXTS).vectors.tobytes()}


def test_an_answer_says_which_texts_were_cut_and_what_it_cost(small: Server) -> None:
    long = "word " * 60
    texts = [long, long, "short", long]
    expected = small.embed(*texts)

    async def ask() -> emberd.Embeddings:
        async with emberd.AsyncClient(small.url) as client:
            return await client.embed(texts)

    with emberd.Client(small.url) as client:
        whole = client.embed(["short"])
        cut = client.embed(texts)

    assert (whole.truncated, whole.usage) == ((), emberd.Usage(tokens=3))
    assert (list(cut.truncated), cut.usage.tokens) == ([0, 1, 3], expected["usage"]["tokens"])
    assert asyncio.run(ask()).truncated == cut.truncated
    npy = small.http.post("/embed", json={"texts": texts}, headers={"accept": "application/x-npy"})
    assert npy.headers["x-emberd-truncated"] == "0-1,3"


def test_an_answer_is_made_as_before(server: Server) -> None:
    """For code that fakes one in its own tests, with the three fields that it had at first."""
    vectors = np.zeros((1, 3), np.float32)

    answer = emberd.Embeddings(vectors, "minilm", "0" * 16)

    assert (answer.truncated, answer.usage.tokens) == ((), 0)


def test_errors_are_those_of_the_server(server: Server) -> None:
    with emberd.Client(server.url) as client:
        with pytest.raises(UnknownModelError) as unknown:
            client.embed(TEXTS, model="minlm")
        assert "minilm" in str(unknown.value.hint)
        with pytest.raises(NoTextsError):
            client.embed([])
        with pytest.raises(FingerprintMismatchError):
            client.embed(TEXTS, fingerprint="0" * 16)
        with pytest.raises(TextTooLongError):
            client.embed(["word " * 600], truncate=False)
        with pytest.raises(BadOptionError):
            client.embed(TEXTS, dimensions=7)
        with pytest.raises(TooLargeError):
            client.embed(["x"] * 3000)
        with pytest.raises(WrongShapeError):
            client.embed("one string")
        with pytest.raises(UnknownModelError):
            client.load("minlm")


def test_half_a_character_is_the_wrong_shape(server: Server) -> None:
    async def ask() -> None:
        async with emberd.AsyncClient(server.url) as client:
            await client.embed(["\ud800"])

    refused = server.http.post("/embed", content=b'{"texts": ["a", "\\ud800"]}',
                               headers={"content-type": "application/json"})  # fmt: skip
    with emberd.Client(server.url) as client, pytest.raises(WrongShapeError) as found:
        client.embed(["a", "\ud800"])
    with pytest.raises(WrongShapeError, match=r"texts\.0"):
        asyncio.run(ask())

    said = refused.json()
    assert (found.value.message, found.value.hint) == (said["detail"], said["hint"])


def test_a_busy_server_is_not_said_to_be_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with (
            emberd.Client(url, timeout=0.1) as client,
            pytest.raises(DeadlineError, match="within this client's timeout") as late,
        ):
            client.health()

    assert "longer `timeout`" in str(late.value.hint)


@pytest.mark.parametrize("url", ["foo", "", "localhost:8767", "http://", "ftp://a", "http://a:b"])
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    for kind in (emberd.Client, emberd.AsyncClient):
        with pytest.raises(ConfigError, match="is not a URL"):
            kind(url)


def test_load_and_unload(small: Server) -> None:
    with emberd.Client(small.url) as client:
        assert client.load("tiny")["state"] == "ready"
        assert "tiny" in client.unload()
        assert client.health()["loaded"] is False
        assert client.models()[0]["state"] == "cold"


def test_it_finds_the_server_as_the_command_line_does(
    small: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("EMBERD_", "XDG_"))]:
        monkeypatch.delenv(name)

    monkeypatch.setenv("EMBERD_HOME", str(small.home))
    with emberd.Client() as client:
        assert client.embed(["x"]).vectors.shape == (1, 64)
    monkeypatch.setenv("EMBERD_HOME", str(home))
    with pytest.raises(NoServerError, match="No emberd server is running"):
        emberd.Client()


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nobody_there_is_an_error_of_the_tree(tmp_path: Path) -> None:
    with emberd.Client("http://127.0.0.1:1") as client, pytest.raises(NoServerError):
        client.health()
    with emberd.Client(socket=tmp_path / "s") as client, pytest.raises(NoServerError):
        client.health()


def test_import_emberd_is_light_and_names_are_real() -> None:
    program = "import sys, emberd; assert not {'numpy', 'httpx2', 'pydantic'} & sys.modules.keys()"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    for name in emberd.__all__:
        assert getattr(emberd, name)
    with pytest.raises(AttributeError):
        _ = emberd.Clint
