"""Models that cannot be run, or that are damaged: every way in says so, and which file it is."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd.vectors import Matrix
from tests.backends.references import change_json
from tests.serving import Server, clean_environ, run_emberd

TINY = Path(__file__).parents[1] / "reference" / "tiny"
QUERY = "encoder.layer.0.attention.self.query.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CODE = {"auto_map": {"AutoModel": "modeling_evil.Model"}}


@dataclass(frozen=True)
class Bad:
    """What is done to a copy of a tiny model, and what the error must name."""

    spoil: Callable[[Path], None]
    named: str
    of: str = "bert"
    is_seen_by: tuple[str, ...] = ()  # commands that see it without loading the model


def change_tensor(folder: Path, change: Callable[[dict[str, Matrix]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def put(name: str, number: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        change_tensor(folder, lambda tensors: tensors[name].__setitem__((3, 5), number))

    return spoil


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    os.truncate(file, file.stat().st_size - 100)


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {name: SHARDS[at % 2] for at, name in enumerate(sorted(tensors))}
    for file in SHARDS:
        part = {name: tensors[name] for name in tensors if weight_map[name] == file}
        save_file(part, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / SHARDS[1]).unlink()


def cut_a_shard(folder: Path) -> None:
    shard(folder)
    os.truncate(folder / SHARDS[1], 3000)


def set_config(**changes: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "config.json", **changes)


def add_own_step(folder: Path) -> None:
    steps = json.loads((folder / "modules.json").read_text())
    steps.append({"idx": 3, "name": "3", "path": "3_Evil", "type": "custom_st.Evil"})
    (folder / "modules.json").write_text(json.dumps(steps))


BAD: Mapping[str, Bad] = {
    "nobody-runs": Bad(
        set_config(model_type="zebra"), "config.json: model_type is 'zebra'",
        is_seen_by=("config", "doctor", "add"),
    ),
    "own-code": Bad(
        set_config(model_type="zebra", **CODE), "zebra", is_seen_by=("config", "doctor"),
    ),
    "own-step": Bad(add_own_step, "modules.json asks for Python code", is_seen_by=("add",)),
    "nan": Bad(put(QUERY, np.nan), f"model.safetensors: {QUERY} has numbers that are NaN"),
    "infinite": Bad(put(QUERY, -np.inf), f"model.safetensors: {QUERY} has numbers that are NaN"),
    "infinite-table": Bad(
        put("embeddings", np.inf), "model.safetensors: embeddings has numbers", of="model2vec"
    ),
    "cut-off": Bad(cut, "model.safetensors cannot be read"),
    "shard-cut-off": Bad(cut_a_shard, f"{SHARDS[1]} cannot be read"),
    "shard-lost": Bad(
        lose_a_shard, f"{SHARDS[1]} is missing", is_seen_by=("add", "config", "pull"),
    ),
}  # fmt: skip
NOT_FINITE = ("nan", "infinite", "infinite-table")
RUNS = {"native-in-spite-of-code": Bad(set_config(**CODE), "")}


def entry(folder: Path, **more: object) -> dict[str, Any]:
    return {
        "sources": [{"path": str(folder)}], "dimensions": 64, "pooling": "mean", "max_tokens": 40,
        "compute": "f32", **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("bad")
    made = {}
    for name, bad in {**BAD, **RUNS}.items():
        made[name] = Path(shutil.copytree(TINY / bad.of, root / name))
        (made[name] / "modeling_evil.py").write_text(f"open({str(root / 'it-ran')!r}, 'w')\n")
        bad.spoil(made[name])
    return made


@pytest.fixture(scope="module")
def server(
    folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    models = {
        f"{name}-{backend}": entry(folder, backend=backend)
        for name, folder in folders.items()
        for backend in ("openvino", "mlx")
    }
    models["static"] = entry(TINY / "model2vec")
    home = tmp_path_factory.mktemp("home")
    with Server(home, config=json.dumps({"models": models})) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(
            name,
            backend,
            marks=pytest.mark.slow if backend == "mlx" and name not in NOT_FINITE else (),
        )
        for name in BAD
        for backend in ("openvino", "mlx")
    ],
)
def test_a_request_for_it_is_refused_with_the_file(
    name: str, backend: str, server: Server, folders: Mapping[str, Path]
) -> None:
    told = server.http.post("/embed", json={"texts": ["a"], "model": f"{name}-{backend}"})

    assert (told.status_code, told.json()["code"]) == (500, "model_load_failed")
    assert BAD[name].named in told.json()["detail"]
    assert str(folders[name]) in told.json()["detail"]
    assert "Traceback" not in server.log()


def test_what_runs_natively_runs_whatever_code_it_brings(
    server: Server, folders: Mapping[str, Path]
) -> None:
    server.embed("a", model="native-in-spite-of-code-openvino")

    done = server.run("add", str(folders["native-in-spite-of-code"]), "--json")
    assert done.returncode == 0
    assert b"auto_map). openvino runs bert without it." in done.stdout
    assert not (folders["own-code"].parent / "it-ran").exists()


@pytest.mark.parametrize("name", BAD)
def test_verify_says_the_same(name: str, server: Server) -> None:
    done = server.run("verify", f"{name}-openvino", "--json")

    assert done.returncode == 1
    assert BAD[name].named in done.stdout.decode().replace("\\n", " ")


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if "add" in bad.is_seen_by])
def test_add_says_it_before_anything_is_written(
    name: str, server: Server, folders: Mapping[str, Path]
) -> None:
    done = server.run("add", str(folders[name]), "--name", "new", "--json", "--yes")

    assert done.returncode == 1
    told = json.loads(done.stderr)
    assert told["code"] == "model_load_failed"
    assert str(folders[name]) in told["detail"]
    assert told["hint"]
    assert "new" not in json.loads((server.home / "config.yaml").read_text())["models"]


def test_add_says_that_the_model_wants_its_own_code_run(
    server: Server, folders: Mapping[str, Path]
) -> None:
    told = json.loads(server.run("add", str(folders["own-code"]), "--json").stderr)

    assert "asks for Python code that comes with the model (modeling_evil.Model)" in told["detail"]
    assert "never runs such code" in told["detail"]


def test_pull_names_the_shard_that_is_lost(server: Server) -> None:
    done = server.run("pull", "shard-lost-openvino")

    assert done.returncode == 1
    assert f"{SHARDS[1]} is missing" in " ".join(done.stderr.decode().split())


def test_pull_says_why_it_could_not_compile_a_model(
    home: Path, folders: Mapping[str, Path]
) -> None:
    home.mkdir()
    config = {"models": {"mine": entry(folders["nobody-runs"])}}
    (home / "config.yaml").write_text(json.dumps(config))
    environ = clean_environ(home) | {"EMBERD_LIMITS_PREPARE": "true"}

    done = run_emberd("pull", "mine", home=home, environ=environ)

    assert BAD["nobody-runs"].named in " ".join(done.stderr.decode().split())


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if "config" in bad.is_seen_by])
def test_config_check_names_the_line_and_says_the_same(
    name: str, home: Path, folders: Mapping[str, Path]
) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(json.dumps({"models": {"mine": entry(folders[name])}}))

    done = run_emberd("config", "check", home=home)

    assert done.returncode == 1
    told = " ".join(done.stderr.decode().split())
    assert "config.yaml:1: models.mine.sources: " in told
    assert BAD[name].named in told


@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if "doctor" in bad.is_seen_by])
def test_doctor_says_the_same_of_the_default(
    name: str, home: Path, folders: Mapping[str, Path]
) -> None:
    home.mkdir()
    config = {"default": "mine", "models": {"mine": entry(folders[name])}}
    (home / "config.yaml").write_text(json.dumps(config))

    done = run_emberd("doctor", "--json", home=home)

    rows = json.loads(done.stdout)
    found = next(row for row in rows["checks"] if row["check"] == "model")
    assert found["verdict"] == "failed"
    assert BAD[name].named in found["detail"]


def test_a_text_without_a_token_that_the_model_knows_costs_its_neighbours_nothing(
    server: Server,
) -> None:
    server.embed("a", model="static")

    told = server.http.post("/embed", json={"texts": ["a", "", "b"], "model": "static"})
    server.embed("a b", "c", model="static")

    assert (told.status_code, told.json()["code"]) == (422, "no_tokens")
    assert "Text 1 " in told.json()["detail"]
    assert "a batch of" not in server.log()  # no batch has failed
