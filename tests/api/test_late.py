"""Late chunking over HTTP: `POST /embed` with `chunk.late`."""

from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd import vectors
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.client.clients import Client
from emberd.vectors import Matrix
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer
from tests.backends import late
from tests.backends.references import MOST_TOKENS, TINY, copy_of, load
from tests.serving import Server

NAME = "nomic_bert"
CONFIG = """
default: tiny
cache: {{vectors: 32MiB}}
models:
  tiny:
    sources: [{{path: {tiny}}}]
    dimensions: 64
    matryoshka: [32]
    pooling: mean
    precision: f32
    backend: openvino
    max_tokens: {most}
    prompts: {{query: '{prompt}'}}
  first: {{sources: [{{path: {first}}}], dimensions: 64, pooling: cls}}
"""
TEXTS = [
    "It keeps a model warm 火 while somebody asks. Nobody does.",
    "",
    "A server turns texts into vectors.",
    " \n",
    "It keeps a model warm 火 while somebody asks. Nobody does.",
]
CHUNK = {"size": 12, "overlap": 4}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("late")
    first = copy_of("bert", home / "first", pooling="cls")
    config = CONFIG.format(
        tiny=TINY / NAME, first=first, most=MOST_TOKENS[NAME], prompt=late.PROMPT
    )
    with Server(home, config=config) as running:
        yield running


def embed(server: Server, *texts: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    return server.embed(*texts, chunk={**CHUNK, "late": True}, **options)


def unlike(a: object, b: object) -> float:
    """The lowest cosine of two lists of vectors."""
    return vectors.lowest_cosine(np.array(a, np.float32), np.array(b, np.float32))


def expected(places: list[dict[str, int]], prompt: str, tmp_path: Path) -> Matrix:
    """What the encoder, which other tests compare with transformers, makes of these chunks."""
    encoder = load(OpenVINOBackend(), TINY / NAME, tmp_path)
    tokenizer = Tokenizer(TINY / NAME, MOST_TOKENS[NAME])
    rows = []
    for number in sorted({each["text"] for each in places}):
        spans = [(each["start"], each["end"]) for each in places if each["text"] == number]
        tokens = tokenizer.encode_chunks(TEXTS[number], prompt, spans)
        chunks = np.array(tokens.chunks, np.int32)
        rows.append(encoder.encode(*pad([tokens]), chunks=chunks))  # type: ignore[call-arg]
    return vectors.normalize(np.concatenate(rows))


@pytest.mark.parametrize("role", [None, "query"])
def test_each_chunk_has_the_mean_of_its_tokens_in_the_whole_text(
    own: Server, role: str | None, tmp_path: Path
) -> None:
    said = embed(own, *TEXTS, input_type=role)

    places = said["chunks"]
    assert [each["text"] for each in places] == sorted(each["text"] for each in places)
    assert {each["text"] for each in places} == {0, 2, 4}
    assert len(places) > 6
    reference = expected(places, late.PROMPT if role else "", tmp_path)
    assert unlike(said["embeddings"], reference) > 0.99999
    plain = own.embed(*TEXTS, chunk=CHUNK, input_type=role)
    assert plain["chunks"] == places
    assert plain["chunking"]["size"] == said["chunking"]["size"] == 12
    assert (plain["chunking"]["late"], said["chunking"]["late"]) == (False, True)
    assert unlike(said["embeddings"], plain["embeddings"]) < 0.99


def test_a_text_is_counted_once_and_neither_cut_nor_cached(own: Server) -> None:
    before = own.embed(TEXTS[0])
    first, second = embed(own, *TEXTS), embed(own, *TEXTS)

    whole = own.embed(*(text for text in TEXTS if text.strip()))
    assert first["usage"] == whole["usage"]
    assert (first["truncated"], first["cached"], second["cached"]) == ([], 0, 0)
    assert first["embeddings"] == second["embeddings"]
    after = own.embed(TEXTS[0])
    assert after["cached"] == 1
    assert after["embeddings"] == before["embeddings"]


def test_its_space_is_another(own: Server) -> None:
    plain, said = own.embed("a")["fingerprint"], embed(own, TEXTS[0])
    small = embed(own, TEXTS[0], output_dtype="int8")
    half = embed(own, TEXTS[0], dimensions=32)

    fingerprints = {plain, said["fingerprint"], small["fingerprint"], half["fingerprint"]}
    assert len(fingerprints) == 4
    assert own.embed(TEXTS[0], chunk=CHUNK)["fingerprint"] == plain
    assert embed(own, TEXTS[0], fingerprint=said["fingerprint"]) == said
    for options, wrong in (
        ({"chunk": {"late": True}}, plain),
        ({"chunk": {}}, said["fingerprint"]),
        ({"chunk": {"late": True}, "output_dtype": "int8"}, said["fingerprint"]),
    ):
        body = {"texts": ["a"], "fingerprint": wrong, **options}
        answer = own.http.post("/embed", json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "fingerprint_mismatch")


def test_forms(own: Server) -> None:
    said = np.array(embed(own, *TEXTS)["embeddings"], np.float32)
    base64 = embed(own, *TEXTS, encoding="base64")["embeddings"]
    half = embed(own, *TEXTS, dimensions=32)
    bits = embed(own, *TEXTS, output_dtype="ubinary")["embeddings"]

    assert np.array_equal(np.frombuffer(b"".join(map(b64decode, base64)), "<f4"), said.ravel())
    assert unlike(half["embeddings"], said[:, :32]) > 0.99999
    assert np.array_equal(np.array(bits, np.uint8), np.packbits(said > 0, axis=1))


def test_beside_other_requests(own: Server) -> None:
    """Batches with chunks and batches of texts do not mix."""
    words = [f"a text of {number} words" for number in range(40)]
    chunks, whole = embed(own, *TEXTS)["embeddings"], own.embed(*words)["embeddings"]

    def ask(number: int) -> float:
        if number % 2:
            return unlike(embed(own, *TEXTS)["embeddings"], chunks)
        return unlike(own.embed(*words, cache=False)["embeddings"], whole)

    with ThreadPoolExecutor(8) as threads:
        assert min(threads.map(ask, range(40))) > 0.99999


@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        ({"model": "first"}, 400, "bad_option", "first has pooling cls"),
        ({"texts": ["word " * 100]}, 422, "text_too_long", "takes 64"),
        ({"texts": [" "]}, 400, "no_texts", "white space"),
        ({"chunk": {"late": 3}}, 422, "wrong_shape", "late"),
        ({"chunk": {"size": 63, "late": True}}, 400, "bad_option", "62"),
    ],
)
def test_what_cannot_be(
    own: Server, body: dict[str, Any], status: int, code: str, words: str
) -> None:
    answer = own.http.post("/embed", json={"texts": ["a"], "chunk": {"late": True}, **body})

    said = answer.json()
    assert (answer.status_code, said["code"]) == (status, code), answer.text
    assert words in said["detail"]
    assert said["hint"]


def test_models_that_can_are_named(own: Server) -> None:
    body = {"texts": ["a"], "chunk": {"late": True}, "model": "first"}
    hint = own.http.post("/embed", json=body).json()["hint"]

    rows = own.http.get("/models").json()["models"]
    able = [each["name"] for each in rows if (each["kind"], each["pooling"]) == ("embed", "mean")]
    assert any(name in hint for name in able)


def test_where_to_cut_does_not_depend_on_it(own: Server) -> None:
    answer = own.http.post("/chunk", json={"texts": ["a"], "late": True})

    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_shape")


def test_the_python_client_passes_it_on(own: Server) -> None:
    with Client(own.url) as client:
        found = client.embed(TEXTS, chunk={**CHUNK, "late": True})

    said = embed(own, *TEXTS)
    assert found.fingerprint == said["fingerprint"]
    assert len(found.chunks or ()) == len(found.vectors)
    assert unlike(found.vectors, said["embeddings"]) > 0.99999
