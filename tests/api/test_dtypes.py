"""Vectors of smaller dtypes over HTTP: native, with real workers; each is a space of its own."""

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import emberd
from emberd import vectors
from emberd.backends.tiny_bert import tiny_bert
from emberd.dtypes import NUMPY, Dtype
from emberd.pool.steps import TEXT as STEPS_TEXT
from emberd.spaces.fingerprint import of_dtype
from emberd.vectors import Rows
from tests.serving import Server, wait_for

TEXTS = ["first text", "", "third"]
DTYPES = [*NUMPY]


def tiny(folder: Path, **options: object) -> str:
    """Return a configuration whose default is a tiny model of 64 dimensions."""
    tiny_bert(folder)
    entry = {"sources": [{"path": str(folder)}], "dimensions": 64, "pooling": "mean", **options}
    return json.dumps({"default": "tiny", "models": {"tiny": entry}})


def steps(home: Path, model: str = "tiny") -> dict[str, float]:
    """Return what `lock.json` keeps of a model's int8."""
    entry = json.loads((home / "state" / "lock.json").read_text())["models"][model]
    found: dict[str, float] = entry["steps"]
    return found


def rounded(floats: object, dtype: Dtype, step: float) -> Rows:
    """Return what a dtype makes of float vectors that came as JSON."""
    rows = np.array(floats, np.float32)
    return vectors.quantize(rows, dtype, vectors.ranges(step, rows.shape[1]))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a tiny model with a smaller size, and one that cannot be packed."""
    home = tmp_path_factory.mktemp("own")
    config = tiny(home / "tiny", matryoshka=[32, 20], prompts={"query": "q: "})
    with Server(home, config=config) as running:
        yield running


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [64, 32])
def test_it_is_made_of_the_float_vectors_cut_and_normalized(
    own: Server, dtype: Dtype, size: int
) -> None:
    floats = own.embed(*TEXTS, dimensions=size)
    small = own.embed(*TEXTS, dimensions=size, output_dtype=dtype)
    step = steps(own.home).get(str(size), 0.0)

    expected = rounded(floats["embeddings"], dtype, step)
    assert (np.array(small["embeddings"], NUMPY[dtype]) == expected).all()
    assert small["fingerprint"] == of_dtype(floats["fingerprint"], dtype, step)
    assert (small["output_dtype"], small["dimensions"]) == (dtype, size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_form_holds_the_same_numbers(own: Server, dtype: Dtype) -> None:
    body = {"texts": TEXTS, "output_dtype": dtype}

    answer = own.embed(*TEXTS, output_dtype=dtype)
    numbers = np.array(answer["embeddings"], NUMPY[dtype])
    packed = own.embed(*TEXTS, output_dtype=dtype, encoding="base64")["embeddings"]
    raw = own.http.post("/embed", json=body, headers={"accept": "application/octet-stream"})
    npy = own.http.post("/embed", json=body, headers={"accept": "application/x-npy"})

    loaded = np.load(io.BytesIO(npy.content))
    assert (loaded.dtype, loaded.shape) == (numbers.dtype, numbers.shape)
    assert numbers.tobytes() == loaded.tobytes() == raw.content
    assert numbers.tobytes() == b"".join(map(base64.b64decode, packed))
    for sent in (raw, npy):
        assert (sent.headers["x-emberd-dtype"], sent.headers["x-emberd-dimensions"]) == (
            dtype, "64",
        )  # fmt: skip
        assert sent.headers["x-emberd-fingerprint"] == answer["fingerprint"]


def test_without_a_dtype_an_answer_is_what_it_was(own: Server) -> None:
    plain, named = own.embed("text"), own.embed("text", output_dtype="float")

    assert named.pop("output_dtype") == "float"
    assert plain == named


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_its_own_space_is_what_a_caller_may_expect(own: Server, dtype: Dtype) -> None:
    mine = own.embed("text", output_dtype=dtype)["fingerprint"]

    assert own.embed("text", output_dtype=dtype, fingerprint=mine)["fingerprint"] == mine
    for other in DTYPES:
        if other != dtype:
            body = {"texts": ["text"], "output_dtype": other, "fingerprint": mine}
            refused = own.http.post("/embed", json=body)
            assert (refused.status_code, refused.json()["code"]) == (409, "fingerprint_mismatch")


@pytest.mark.parametrize("dtype", ["binary", "ubinary"])
def test_bits_that_fill_no_byte_are_refused_with_what_to_do(own: Server, dtype: str) -> None:
    body = {"texts": TEXTS, "output_dtype": dtype, "dimensions": 20}

    refused = own.http.post("/embed", json=body)

    assert refused.status_code == 400
    assert "20 cannot be divided by 8" in refused.json()["detail"]
    assert "another size" in refused.json()["hint"]
    assert len(own.embed("text", output_dtype="int8", dimensions=20)["embeddings"][0]) == 20


def test_a_dtype_that_nobody_knows_is_refused_by_name(own: Server) -> None:
    refused = own.http.post("/embed", json={"texts": TEXTS, "output_dtype": "int4"})

    assert refused.status_code == 400
    assert "'ubinary'" in refused.json()["detail"]


def test_steps_are_measured_once_and_kept_for_every_later_run(home: Path) -> None:
    config = tiny(home / "tiny")
    with Server(home, config=config) as first:
        with ThreadPoolExecutor(8) as threads:  # the first request for int8 is several
            asked = [
                threads.submit(first.embed, f"text {n}", output_dtype=("int8", "uint8")[n % 2])
                for n in range(8)
            ]
        named = {each.result()["fingerprint"] for each in asked}
        assert len(named) == 2
        assert (home / "server.log").read_text().count("measured the steps") == 1

    lock = home / "state" / "lock.json"
    kept = json.loads(lock.read_text())
    step = kept["models"]["tiny"]["steps"]["64"]
    kept["models"]["tiny"]["steps"]["64"] = 4 * step  # as another machine measured it, say
    lock.write_text(json.dumps(kept))
    with Server(home, config=config) as second:
        small = second.embed("text", output_dtype="int8")
        floats = second.embed("text")

    assert (np.array(small["embeddings"]) == rounded(floats["embeddings"], "int8", 4 * step)).all()
    assert small["fingerprint"] == of_dtype(floats["fingerprint"], "int8", 4 * step)
    assert small["fingerprint"] not in named
    assert (home / "server.log").read_text().count("measured the steps") == 1


def test_a_model_whose_vectors_are_not_normalized_has_steps_that_reach_them(home: Path) -> None:
    with Server(home, config=tiny(home / "tiny", normalize=False)) as own:
        floats = np.array(own.embed(*TEXTS[::2])["embeddings"])
        small = np.array(own.embed(*TEXTS[::2], output_dtype="int8")["embeddings"])
    step = steps(home)["64"]

    assert 127 * step > 0.9 * np.abs(floats).max() > 10 * step
    assert np.abs(floats - small * step).max() <= step / 2 * 1.001


def of_openai(server: Server, **options: object) -> list[Any]:
    """Return the vectors of OpenAI's dialect."""
    answer = server.http.post("/v1/embeddings", json={"input": TEXTS, **options})
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_voyages_word_gives_the_same_in_both_encodings(own: Server, dtype: Dtype) -> None:
    expected = own.embed(*TEXTS, output_dtype=dtype)["embeddings"]

    assert of_openai(own, output_dtype=dtype) == expected
    packed = of_openai(own, output_dtype=dtype, encoding_format="base64")
    assert [np.frombuffer(base64.b64decode(row), NUMPY[dtype]).tolist() for row in packed] == [
        np.array(row, NUMPY[dtype]).tolist() for row in expected
    ]


@pytest.mark.parametrize("dtype", ["float", "binary", "ubinary"])
def test_jinas_word_gives_the_same(own: Server, dtype: Dtype) -> None:
    expected = of_openai(own, output_dtype=dtype)

    assert of_openai(own, embedding_type=dtype) == expected
    assert of_openai(own, embedding_type=dtype, output_dtype=dtype) == expected
    packed = of_openai(own, embedding_type="base64", output_dtype=dtype)
    assert packed == of_openai(own, encoding_format="base64", output_dtype=dtype)


def test_two_dtypes_at_once_are_refused(own: Server) -> None:
    body = {"input": TEXTS, "output_dtype": "int8", "embedding_type": "binary"}

    refused = own.http.post("/v1/embeddings", json=body)

    assert refused.status_code == 400
    assert "int8 and binary are two dtypes" in refused.json()["error"]["message"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_python_client_gives_arrays_of_that_dtype(own: Server, dtype: Dtype) -> None:
    expected = own.embed(*TEXTS, output_dtype=dtype)
    with emberd.Client(own.url) as client:
        answer = client.embed(TEXTS, dtype=dtype)

    assert answer.vectors.dtype == np.dtype(NUMPY[dtype])
    assert (answer.vectors == np.array(expected["embeddings"], NUMPY[dtype])).all()
    assert answer.fingerprint == expected["fingerprint"]
    assert answer.vectors.flags.writeable


def test_the_command_line_prints_them(own: Server) -> None:
    expected = own.embed("a text", output_dtype="ubinary")

    done = own.run("embed", "--dtype", "ubinary", "a text")
    wrong = own.run("embed", "--dtype", "int4", "a text")

    row = json.loads(done.stdout)
    assert (row["embedding"], row["fingerprint"]) == (
        expected["embeddings"][0], expected["fingerprint"],
    )  # fmt: skip
    assert wrong.returncode == 1
    assert b"ubinary" in wrong.stderr


def test_vectors_that_were_kept_are_rounded_as_those_that_are_computed(home: Path) -> None:
    config = json.loads(tiny(home / "tiny")) | {"cache": {"vectors": "32MiB"}}
    with Server(home, config=json.dumps(config)) as kept:
        first = kept.embed(STEPS_TEXT, *TEXTS)
        wait_for(lambda: kept.embed(STEPS_TEXT)["cached"] == 1)
        small = kept.embed(*TEXTS, output_dtype="int8")
    step = steps(home)["64"]

    assert small["cached"] == len(TEXTS)
    assert small["embeddings"] == rounded(first["embeddings"][1:], "int8", step).tolist()
