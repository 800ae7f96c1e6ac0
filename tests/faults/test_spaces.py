"""An answer is of one space, whatever becomes of the model's files while it is computed."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd import __version__
from emberd.backends.base import Encoder, LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import SourceError
from emberd.registry.spec import ModelSpec, Source
from emberd.vectors import Matrix
from emberd.worker import loading
from emberd.worker.loading import Phases
from emberd.worker.wire import Start
from tests.cosines import cosines
from tests.faults.tiny import CONFIG, TINY
from tests.faults.troubled import halted, serve_troubled
from tests.serving import Server, wait_for

KEPT = 250  # texts that have come back before a worker is killed
TEXTS = [f"text {number} " + "some words that take a while to embed " * 8 for number in range(1500)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of one's own."""
    return Path(shutil.copytree(TINY, tmp_path / "tiny"))


def serve(home: Path, folder: Path) -> Server:
    return serve_troubled(home, config=CONFIG.format(folder=folder) + "    backend: troubled\n")


def replace_weights(folder: Path, seed: int) -> None:
    """Put other weights into the folder, as a download does: by rename."""
    weights = folder / "model.safetensors"
    numbers = np.random.default_rng(seed)
    tensors = {
        name: tensor + numbers.normal(size=tensor.shape).astype(tensor.dtype)
        for name, tensor in load_file(weights).items()
    }
    save_file(tensors, folder / "new")
    (folder / "new").replace(weights)


def unanswered(own: Server) -> int:
    """Return how many texts have no vector yet."""
    return metric(own, "queued_texts")


def metric(own: Server, name: str) -> int:
    """Return a number of the model."""
    pattern = rf'^emberd_{name}\{{model="tiny"\}} (\S+)'
    found = re.search(pattern, own.http.get("/metrics").text, re.M)
    return int(float(found[1])) if found else 0


def kill_in_the_middle(own: Server, requests: int = 1) -> None:
    """Kill the worker, which is `halted`, once it has answered some texts of the requests."""
    wait_for(lambda: 0 < unanswered(own) <= requests * len(TEXTS) - KEPT)
    (worker,) = own.workers()
    worker.kill()


def change_in_the_middle(own: Server, folder: Path, seed: int, requests: int = 1) -> None:
    replace_weights(folder, seed)
    kill_in_the_middle(own, requests)


def rows_cosines(some: Any, others: Any) -> Matrix:  # noqa: ANN401 - JSON
    """Return the cosine of each pair of rows that answers hold."""
    return cosines(np.array(some, np.float32), np.array(others, np.float32))


DIALECTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "native": ("/embed", {"texts": TEXTS}, lambda data: data["embeddings"]),
    "openai": (
        "/v1/embeddings",
        {"input": TEXTS},
        lambda data: [row["embedding"] for row in data["data"]],
    ),
    "ollama": ("/api/embed", {"input": TEXTS}, lambda data: data["embeddings"]),
    "tei": ("/embed", {"inputs": TEXTS}, lambda data: data),
}


@pytest.mark.slow
@pytest.mark.parametrize("dialect", DIALECTS)
def test_weights_replaced_under_a_request_whose_worker_dies_give_one_space(
    home: Path, folder: Path, dialect: str
) -> None:
    path, body, vectors_of = DIALECTS[dialect]
    with serve(home, folder) as own, ThreadPoolExecutor(1) as thread:
        before = own.embed("text", model="tiny")
        with halted(own, after_rows=300):
            asked = thread.submit(own.http.post, path, json={**body, "model": "tiny"})
            change_in_the_middle(own, folder, seed=1)

        answer = asked.result()

        assert answer.status_code == 200
        after = own.embed("text", model="tiny")
        assert after["fingerprint"] != before["fingerprint"]
        assert answer.headers["x-emberd-fingerprint"] == after["fingerprint"]
        again = own.embed(*TEXTS, model="tiny")["embeddings"]
        assert rows_cosines(vectors_of(answer.json()), again).min() > 0.9999
        assert rows_cosines(before["embeddings"], after["embeddings"]).max() < 0.99


@pytest.mark.slow
def test_who_stated_a_fingerprint_is_refused_and_who_came_with_him_is_not(
    home: Path, folder: Path
) -> None:
    with serve(home, folder) as own, ThreadPoolExecutor(2) as threads:
        space = own.embed("text", model="tiny")["fingerprint"]
        body = {"texts": TEXTS, "model": "tiny"}
        with halted(own, after_rows=300):
            stated = threads.submit(own.http.post, "/embed", json={**body, "fingerprint": space})
            asked = threads.submit(own.http.post, "/embed", json=body)
            wait_for(lambda: unanswered(own) > len(TEXTS))  # both are there
            change_in_the_middle(own, folder, seed=1, requests=2)

        assert (stated.result().status_code, stated.result().json()["code"]) == (
            409, "fingerprint_mismatch",
        )  # fmt: skip
        assert asked.result().status_code == 200
        assert asked.result().json()["fingerprint"] != space


@pytest.mark.slow
def test_a_space_that_changes_again_under_a_request_is_an_error_with_a_hint(
    home: Path, folder: Path
) -> None:
    with serve(home, folder) as own, ThreadPoolExecutor(1) as thread:
        own.embed("text", model="tiny")
        with halted(own, after_rows=300):
            asked = thread.submit(own.http.post, "/embed", json={"texts": TEXTS, "model": "tiny"})
            change_in_the_middle(own, folder, seed=1)
            wait_for(lambda: own.row("tiny")["loads"] == 2)  # it has all of them once more
            change_in_the_middle(own, folder, seed=2)

        answer = asked.result()

        assert (answer.status_code, answer.json()["code"]) == (503, "space_changing")
        assert answer.headers["retry-after"]
        assert answer.json()["hint"]
        own.embed(*TEXTS[:10], model="tiny")


@pytest.mark.slow
def test_the_same_weights_keep_what_had_come_back(home: Path, folder: Path) -> None:
    with serve(home, folder) as own, ThreadPoolExecutor(1) as thread:
        own.embed("text", model="tiny")
        with halted(own, after_rows=300):
            asked = thread.submit(own.embed, *TEXTS, model="tiny")
            kill_in_the_middle(own)

        assert len(asked.result()["embeddings"]) == len(TEXTS)
        assert own.row("tiny")["loads"] == 2
        made = metric(own, "batch_texts_total")
        assert len(TEXTS) <= made < len(TEXTS) + KEPT  # so what had come back was not made again


@pytest.mark.slow
def test_lines_of_one_command_are_of_one_space(home: Path, folder: Path) -> None:
    """They are asked for in several requests."""
    with serve(home, folder) as own:
        own.embed("text", model="tiny")
        command = [sys.executable, "-m", "emberd.cli.main", "embed", "--model", "tiny"]
        environ = {**os.environ, "EMBERD_HOME": str(home)}
        errors = home / "stderr"
        with (
            errors.open("w") as stderr,
            subprocess.Popen(
                command,
                env=environ,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            ) as embedding,
        ):
            assert embedding.stdin and embedding.stdout
            embedding.stdin.write("first\n" * 256)
            embedding.stdin.flush()
            line = embedding.stdout.readline()
            assert line, errors.read_text()
            replace_weights(folder, seed=1)
            own.http.post("/unload")
            embedding.stdin.write("second\n" * 256)
            embedding.stdin.close()
            # By the same object: it may have read more than the first line already.
            lines = [line, *embedding.stdout]

        said = errors.read_text()
        (space,) = {json.loads(line)["fingerprint"] for line in lines}
        assert embedding.returncode == 1, said
        assert space in said


def test_weights_replaced_while_they_are_loaded_are_refused_and_nothing_of_them_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec(
        name="tiny", sources=(Source(path=str(folder)),), dimensions=64, pooling="mean",
        backend="openvino",
    )  # fmt: skip
    cache = tmp_path / "cache"
    start = Start(
        version=__version__, spec=asdict(spec), hub="/nowhere", cache=str(cache), lock=None
    )
    load = OpenVINOBackend.load

    def replacing(self: OpenVINOBackend, request: LoadRequest) -> Encoder:
        replace_weights(folder, seed=1)
        return load(self, request)

    monkeypatch.setattr(OpenVINOBackend, "load", replacing)
    with pytest.raises(SourceError, match="changed while"):
        loading.load(start, Phases(0, 0), lambda _: None)

    assert not list(cache.rglob("*.blob"))
    monkeypatch.undo()
    loading.load(start, Phases(0, 0), lambda _: None)
    assert list(cache.rglob("*.blob"))


@pytest.mark.slow
def test_weights_replaced_between_their_hashing_and_their_loading_are_not_served_as_the_old(
    home: Path, folder: Path
) -> None:
    with serve(home, folder) as own:
        weights, kept = folder / "model.safetensors", folder.with_name("kept")
        before = own.embed("text", model="tiny")
        shutil.copytree(folder, kept)
        shutil.rmtree(home / "cache")
        own.http.post("/unload")
        replace_weights(folder, seed=1)
        weights.rename(home / "swap")
        shutil.copy2(kept / "model.safetensors", weights)

        refused = own.http.post("/embed", json={"texts": ["text"], "model": "tiny"})

        assert (refused.status_code, refused.json()["code"]) == (503, "model_unavailable")
        assert "changed while" in refused.json()["detail"]
        asked = {"texts": ["text"], "model": "tiny"}
        wait_for(lambda: own.http.post("/embed", json=asked).status_code == 200)
        after = own.embed("text", model="tiny")
        assert after["fingerprint"] != before["fingerprint"]
        assert rows_cosines(after["embeddings"], before["embeddings"]).max() < 0.99
        own.http.post("/unload")
        shutil.copy2(kept / "model.safetensors", weights)
        assert own.embed("text", model="tiny") == before  # and nothing wrong was kept as it


@pytest.mark.parametrize("keeps", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_weights_rewritten_in_place_under_a_loaded_model_do_not_move_its_vectors(
    home: Path, folder: Path, keeps: bool
) -> None:
    """A worker maps the file: what is written into it may be what it computes with."""
    home.mkdir()
    if not keeps:  # what is compiled cannot be, so it stays as it was made
        (home / "cache").write_text("no folder")
    with serve(home, folder) as own:
        before = own.embed(*TEXTS[:50], model="tiny")
        other = folder.with_name("other")
        shutil.copytree(folder, other)
        replace_weights(other, seed=1)
        with (folder / "model.safetensors").open("r+b") as file:
            file.write((other / "model.safetensors").read_bytes())

        after = own.embed(*TEXTS[:50], model="tiny")

        same_space = after["fingerprint"] == before["fingerprint"]
        same = rows_cosines(after["embeddings"], before["embeddings"]).min() > 0.9999
        assert same_space == same
