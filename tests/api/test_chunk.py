"""`POST /chunk` over HTTP."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server, stopped, wait_for

TEXT = "The kettle is on 😀. Tea will be ready soon.\n\nNobody answered for a long while. " * 5


def chunk(server: Server, *texts: str, **options: object) -> dict[str, Any]:
    answer = server.http.post("/chunk", json={"texts": texts, **options})
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    assert answer.headers["x-emberd-model"] == said["model"]
    assert answer.headers["x-emberd-fingerprint"] == said["fingerprint"]
    return said


def test_each_text_has_its_chunks(server: Server) -> None:
    said = chunk(server, TEXT, "", " \n", "One more.", size=16, overlap=4, return_text=True)

    first, *rest = said["chunks"]
    assert len(first) > 3
    assert rest[:2] == [[], []]
    assert rest[2] == [
        {"start": 0, "end": 9, "start_utf16": 0, "end_utf16": 9, "tokens": 3, "text": "One more."}
    ]
    for each in first:
        assert each["text"] == TEXT[each["start"] : each["end"]]
        assert each["tokens"] <= 16
    assert (said["size"], said["overlap"], said["kind"], said["language"]) == (16, 4, "text", None)
    assert said["usage"] == {"tokens": sum(each["tokens"] for each in [*first, *rest[2]])}
    assert said["fingerprint"] == server.embed("x")["fingerprint"]


def test_texts_are_left_out_unless_asked_for(server: Server) -> None:
    [[only]] = chunk(server, "One more.")["chunks"]

    assert set(only) == {"start", "end", "start_utf16", "end_utf16", "tokens"}


def test_the_default_size_is_told_and_fits(server: Server) -> None:
    said = chunk(server, "word " * 3000, return_text=True)

    assert said["size"] == server.row()["max_tokens"] - 2
    texts = [each["text"] for each in said["chunks"][0]]
    assert len(texts) > 1
    assert server.embed(*texts)["truncated"] == []


def test_kinds(server: Server) -> None:
    markdown = "".join(f"# Part {number}\n\nSome of it. More of it.\n\n" for number in range(4))
    code = "def f(a):\n    b = a + 1\n    return b\n\n\n" * 3

    assert len(chunk(server, markdown, kind="markdown", size=16)["chunks"][0]) == 4
    said = chunk(server, code, kind="code", language="python", size=20)
    assert len(said["chunks"][0]) == 3
    assert said["language"] == "python"


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"size": 999}, 400, "bad_option", "510"),
        ({"size": 8, "overlap": 8}, 400, "bad_option", "overlap"),
        ({"size": 0}, 422, "wrong_shape", "size"),
        ({"overlap": -1}, 422, "wrong_shape", "overlap"),
        ({"sise": 8}, 422, "wrong_shape", "sise"),
        ({"kind": "novel"}, 400, "bad_option", "markdown"),
        ({"kind": "code"}, 400, "bad_option", "python"),
        ({"kind": "code", "language": "cobol"}, 400, "bad_option", "cobol"),
        ({"language": "go"}, 400, "bad_option", "kind code"),
        ({"texts": []}, 400, "no_texts", "No texts"),
        ({"texts": "a string"}, 422, "wrong_shape", "list"),
        ({"texts": ["a"] * 5000}, 413, "too_large", "2048"),
        ({"model": "nobody"}, 404, "unknown_model", "nobody"),
        ({"model": "ms-marco-minilm"}, 400, "wrong_kind", "minilm"),
        ({"fingerprint": "0" * 16}, 409, "fingerprint_mismatch", "0000"),
    ],
)
def test_what_cannot_be_is_refused(
    server: Server, body: dict[str, object], status: int, code: str, words: str
) -> None:
    answer = server.http.post("/chunk", json={"texts": ["a"], **body})

    assert answer.status_code == status, answer.text
    said = answer.json()
    assert said["code"] == code
    assert words in said["detail"] + (said["hint"] or "")


def test_half_a_character_is_refused(server: Server) -> None:
    answer = server.http.post(
        "/chunk",
        content=rb'{"texts": ["a\ud800"]}',
        headers={"Content-Type": "application/json"},
    )

    assert answer.status_code == 422
    assert "texts.0" in answer.json()["detail"]


def test_who_chunks_a_book_keeps_nobody(server: Server) -> None:
    """Short requests that come after it are answered before it."""
    book = " ".join(f"{number:x} things happened." for number in range(20_000))
    server.embed("load first")
    worker, before = psutil.Process(server.row()["pid"]), len(server.log())
    with ThreadPoolExecutor(3) as threads:
        with stopped(worker):  # nothing is answered before all have been asked
            asked = [threads.submit(chunk, server, book)]
            wait_for(lambda: server.row()["in_flight"] == 1)
            asked.append(threads.submit(chunk, server, "a short text"))
            asked.append(threads.submit(server.embed, "a query"))
            wait_for(lambda: server.row()["in_flight"] + server.row()["queued"] == 3)
        said, *short = (each.result() for each in asked)
    [places] = said["chunks"]
    assert len(places) > 200
    assert places[-1]["end"] == len(book)

    def answered() -> list[int] | None:
        """Return the tokens of each answer so far, once these three are among them."""
        found = re.findall(r'"route":"/(?:chunk|embed)".*"tokens":(\d+)', server.log()[before:])
        tokens = [int(each) for each in found]
        return tokens if {each["usage"]["tokens"] for each in (said, *short)} <= {*tokens} else None

    assert wait_for(answered)[-1] == said["usage"]["tokens"]


def embed(server: Server, *texts: str, **options: object) -> dict[str, Any]:
    return server.embed(*texts, chunk={"size": 16, "overlap": 4}, **options)


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose only model has a prompt for questions."""
    home = tmp_path_factory.mktemp("prompted")
    tiny_bert(home / "model")
    entry = f"sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean"
    prompts = "prompts: {query: 'the question is: '}"
    config = f"default: tiny\nmodels: {{tiny: {{{entry}, {prompts}}}}}\n"
    with Server(home, config=config) as running:
        yield running


def test_each_chunk_has_its_vector(prompted: Server) -> None:
    """The same that its text has alone, prompt included."""
    texts = ["", TEXT, "One more.", TEXT[::-1]]
    said = embed(prompted, *texts, input_type="query")

    places = said["chunks"]
    cut = chunk(prompted, *texts, size=16, overlap=4, input_type="query")
    assert places == [
        {"text": text, **each} for text, found in enumerate(cut["chunks"]) for each in found
    ]
    assert {each["text"] for each in places} == {1, 2, 3}
    alone = prompted.embed(
        *(texts[each["text"]][each["start"] : each["end"]] for each in places),
        input_type="query",
    )
    assert np.allclose(said["embeddings"], alone["embeddings"], atol=1e-6)
    assert not np.allclose(said["embeddings"][0], prompted.embed(TEXT[:8])["embeddings"][0])
    how = {"size": 16, "overlap": 4, "kind": "text", "language": None, "late": False}
    assert said["chunking"] == how
    assert (said["truncated"], said["usage"]) == ([], alone["usage"])
    assert said["fingerprint"] == alone["fingerprint"]


def test_vectors_of_chunks_in_base64(server: Server) -> None:
    said = embed(server, TEXT, encoding="base64")

    assert len(said["embeddings"]) == len(said["chunks"])
    assert all(isinstance(each, str) for each in said["embeddings"])


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"texts": ["word " * 5_000], "chunk": {"size": 2}}, 413, "too_large", "2048"),
        ({"texts": [" ", ""], "chunk": {}}, 400, "no_texts", "white space"),
        ({"chunk": {"sise": 3}}, 422, "wrong_shape", "chunk.sise"),
        ({"chunk": {"size": 600}}, 400, "bad_option", "510"),
        ({"chunk": 3}, 422, "wrong_shape", "chunk"),
    ],
)
def test_embedding_of_chunks_that_cannot_be(
    server: Server, body: dict[str, object], status: int, code: str, words: str
) -> None:
    answer = server.http.post("/embed", json={"texts": ["a"], **body})

    assert answer.status_code == status, answer.text
    assert answer.json()["code"] == code
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("accept", ["application/octet-stream", "application/x-npy"])
def test_raw_vectors_have_no_places(server: Server, accept: str) -> None:
    answer = server.http.post(
        "/embed", json={"texts": ["a"], "chunk": {}}, headers={"Accept": accept}
    )

    assert answer.status_code == 400
    assert "JSON" in answer.json()["hint"]
