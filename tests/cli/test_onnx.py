"""A model that only an ONNX file describes: pulled, listed, run, verified, and refused by name."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.vectors import lowest_cosine
from tests.backends.onnx_files import Onnx, save_beside
from tests.hub import Hub
from tests.serving import Server, clean_environ, run_emberd

CONFIG = """
default: door
models:
  ours: {sources: [{hf: me/both}], dimensions: 64, pooling: mean, max_tokens: 48}
  door: {sources: [{hf: me/both}], dimensions: 64, pooling: mean, max_tokens: 48, backend: onnx}
  other: {sources: [{hf: me/other}], dimensions: 64, pooling: mean, max_tokens: 48}
"""
TEXTS = ("the cat eats", "a dog", "the bird is a bird")
GRAPH = ["onnx/model.onnx", "onnx/model.onnx_data"]

Emberd = Callable[..., subprocess.CompletedProcess[bytes]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with a model in both formats, and one of an architecture that nobody knows."""
    folder = tmp_path / "repository"
    tiny_bert(folder)
    config = {**json.loads((folder / "config.json").read_text()), "auto_map": {"A": "b.C"}}
    described = {"onnx/model_quantized.onnx": b"another", **files_of(folder)}
    save_beside(Onnx().model(folder), folder)
    other = {**described, "config.json": b'{"model_type": "perceiver", "auto_map": {"A": "b.C"}}'}
    both = {**described, **files_of(folder)}
    alone = {**both, "config.json": json.dumps({**config, "model_type": "perceiver"}).encode()}
    with Hub({"me/both": both, "me/other": other, "me/door-only": alone}) as running:
        yield running


@pytest.fixture
def environ(home: Path, hub: Hub) -> dict[str, str]:
    """An environment in which that Hub is the Hub."""
    home.mkdir()
    (home / "config.yaml").write_text(CONFIG)
    return clean_environ(home) | hub.variables


@pytest.fixture
def emberd(home: Path, environ: dict[str, str]) -> Emberd:
    """The command line in that environment."""
    return lambda *arguments: run_emberd(*arguments, home=home, environ=environ)


def is_here(emberd: Emberd, name: str) -> bool:
    rows = json.loads(emberd("list", "--json").stdout)["models"]
    return next(bool(row["pulled"]) for row in rows if row["name"] == name)


def test_the_graph_is_pulled_and_gives_what_the_weights_give(
    home: Path, hub: Hub, environ: dict[str, str], emberd: Emberd
) -> None:
    assert emberd("pull", "ours").returncode == 0
    assert not {*GRAPH} & {*hub.downloaded()}
    assert (is_here(emberd, "ours"), is_here(emberd, "door")) == (True, False)
    hub.requests.clear()

    pulled = emberd("pull", "door")

    assert pulled.returncode == 0, pulled.stderr
    assert hub.downloaded() == GRAPH
    assert is_here(emberd, "door")
    with Server(home, environ={**environ, "HF_HUB_OFFLINE": "1"}) as server:
        found = {name: server.embed(*TEXTS, model=name) for name in ("ours", "door")}
        row = server.row("door")
        log = server.log()
    ours, door = (np.array(found[name]["embeddings"], np.float32) for name in ("ours", "door"))
    assert lowest_cosine(ours, door) >= 0.9999
    assert found["ours"]["fingerprint"] != found["door"]["fingerprint"]
    assert (row["backend"], row["compute"], row["dimensions"]) == ("onnx", "f32", 64)
    assert TEXTS[0] not in log


def test_a_pull_mends_what_was_not_downloaded_completely(hub: Hub, emberd: Emberd) -> None:
    (row,) = json.loads(emberd("pull", "door", "--json").stdout)["models"]
    data = Path(row["folder"], GRAPH[1])
    whole = data.read_bytes()
    data.unlink()
    data.write_bytes(whole[: len(whole) // 2])

    refused = emberd("embed", "the cat", "--model", "door")
    assert refused.returncode != 0
    assert b"model.onnx_data has" in refused.stderr
    assert b"Pull the model again" in refused.stderr

    assert b"damaged or missing onnx/model.onnx_data" in emberd("pull", "door").stdout
    assert emberd("embed", "the cat", "--model", "door").returncode == 0


@pytest.mark.slow
def test_the_model_is_verified_like_any_other(emberd: Emberd) -> None:
    emberd("pull", "ours", "door")

    verified = emberd("verify", "--full", "--json", "door")

    rows = json.loads(verified.stdout)["checks"]
    assert {row["verdict"] for row in rows} <= {"ok", "skipped", "warning"}, rows
    agree = [row for row in rows if row["check"] == "backends agree"]
    assert [row["verdict"] for row in agree if "openvino" in row["detail"]] == ["ok"]


def test_a_model_that_nobody_else_runs_is_added(hub: Hub, emberd: Emberd) -> None:
    added = emberd("add", "me/door-only", "--pooling", "mean", "--json", "--yes")

    assert added.returncode == 0, added.stderr
    found = json.loads(added.stdout)
    assert found["entry"]["backend"] == "onnx"
    assert found["origins"]["backend"] == "onnx/model.onnx; openvino does not run perceiver"
    assert "runs perceiver without it" in " ".join(found["notes"])
    sizes = {name: len(content) for name, content in hub.files["me/door-only"].items()}
    assert 0 <= found["size_bytes"] - sum(sizes[name] for name in GRAPH) < 2**16
    assert {*GRAPH} <= {*hub.downloaded()}
    assert not {"model.safetensors", "onnx/model_quantized.onnx"} & {*hub.downloaded()}
    embedded = emberd("embed", "the cat", "--model", "door-only")
    assert len(json.loads(embedded.stdout)["embedding"]) == 64


def test_an_architecture_that_nobody_runs_is_told_about_the_door(emberd: Emberd) -> None:
    refused = emberd("embed", "the cat", "--model", "other")

    assert refused.returncode != 0
    said = " ".join(refused.stderr.decode().split())
    assert "config.json: model_type is 'perceiver' (its own Python code, `auto_map`, is" in said
    assert "backend openvino runs only bert, " in said
    assert "A model of any architecture runs with `backend: onnx`, if it has a file onnx/" in said
