"""What others made is data: no code of a model folder runs, and no name in it leads out of it."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emberd.backends.base import MODEL_FILES, LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.tensors import open_tensors
from emberd.errors import ModelLoadError
from emberd.models.local import find_local, hub_snapshot
from emberd.models.sources import locate
from emberd.registry.spec import ModelSpec, Source
from tests import model_folder
from tests.hub import COMMIT, Answer, Hub, sha256
from tests.models.fetching import Fetcher
from tests.serving import Server

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"


class Bomb:
    """Unpickled, it leaves a file; as any other command would run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What exists once code of the model has run."""
    return tmp_path / "it-ran"


@pytest.fixture
def hostile(tmp_path: Path, mark: Path) -> Path:
    """A whole model whose folder brings code in every form that other programs would run."""
    folder = Path(shutil.copytree(TINY, tmp_path / "hostile"))
    code = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py", "__init__.py",
                 "sitecustomize.py", "custom_st.py"):  # fmt: skip
        (folder / name).write_text(code)
    auto_map = {
        "AutoConfig": "configuration_evil.Config",
        "AutoModel": "modeling_evil.Model",
        "AutoTokenizer": ["tokenization_evil.Tokenizer", None],
    }
    for name in ("config.json", "tokenizer_config.json"):
        file = folder / name
        data = json.loads(file.read_bytes()) if file.exists() else {}
        file.write_text(json.dumps(data | {"auto_map": auto_map, "trust_remote_code": True}))
    for name in ("pytorch_model.bin", "training_args.bin", "model.pt", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb(mark)))
    return folder


def server_of(home: Path, folder: Path, backend: str) -> Server:
    entry = {"sources": [{"path": str(folder)}], "dimensions": 64, "pooling": "mean"}
    config = {"models": {"hostile": {**entry, "backend": backend}}}
    return Server(home, config=json.dumps(config))


def test_the_bomb_is_one(hostile: Path, mark: Path) -> None:
    subprocess.run([sys.executable, hostile / "modeling_evil.py"], check=True)
    assert mark.exists()
    mark.unlink()
    load = f"import pickle; pickle.load(open({str(hostile / 'pytorch_model.bin')!r}, 'rb'))"
    subprocess.run([sys.executable, "-c", load], check=True)
    assert mark.exists()


@pytest.mark.parametrize("backend", ["openvino", pytest.param("mlx", marks=pytest.mark.slow)])
def test_no_code_of_a_model_is_run(home: Path, hostile: Path, mark: Path, backend: str) -> None:
    with server_of(home, hostile, backend) as own:
        assert own.embed("a text", model="hostile")["dimensions"] == 64
        own.http.post("/unload")
        (hostile / "model.safetensors").unlink()

        refused = own.http.post("/embed", json={"texts": ["a"], "model": "hostile"})

    assert not mark.exists()
    assert (refused.status_code, refused.json()["code"]) == (500, "model_load_failed")
    assert "pytorch_model.bin" in refused.json()["detail"]
    assert "safetensors" in refused.json()["hint"]


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("os:system", marks=pytest.mark.slow),
        "emberd.backends.openvino.backend:OpenVINOBackend",
    ],
)
def test_an_entry_names_no_code(home: Path, hostile: Path, backend: str) -> None:
    with server_of(home, hostile, backend) as own:
        refused = own.http.post("/embed", json={"texts": ["a"], "model": "hostile"})

    assert (refused.status_code, refused.json()["code"]) == (500, "backend_missing")


def read(folder: Path) -> Checkpoint:
    request = LoadRequest(
        folder=folder,
        pooling="mean",
        precision="f32",
        compute="f32",
        cache=folder / "c",
        cache_key="k",
    )
    return Checkpoint(request, applies_heads=True)


@pytest.mark.parametrize("kind", ["custom_st.Evil", "os.system", "evil.Transformer.Evil"])
def test_a_module_of_ones_own_is_refused(hostile: Path, kind: str, mark: Path) -> None:
    modules = [{"idx": 0, "path": "", "type": kind}]
    (hostile / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelLoadError, match="not supported"):
        read(hostile)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["..", "../2_Dense", "/etc", ".", "a/b", "a\0b"])
def test_a_module_is_in_the_folder(hostile: Path, name: str) -> None:
    kinds = {"": "Transformer", "1_Pooling": "Pooling", name: "Dense"}
    modules = [{"path": path, "type": f"x.{kind}"} for path, kind in kinds.items()]
    (hostile / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelLoadError, match="not the name of a folder"):
        read(hostile)


@pytest.mark.parametrize(
    "name", ["..", "../model.safetensors", "/etc/passwd", "a/b", "a\0b", 7, None]
)
def test_a_shard_is_in_the_folder(hostile: Path, name: object) -> None:
    (hostile / "model.safetensors").rename(hostile.parent / "model.safetensors")
    index = hostile / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))

    with pytest.raises(ModelLoadError, match="does not name files"):
        read(hostile).has("a")


@pytest.mark.parametrize(
    "announced",
    [
        2**24,
        *(pytest.param(n, marks=pytest.mark.slow) for n in (99_999_999, 2**31, 2**62)),
        2**64 - 1,
    ],
)
def test_a_header_is_not_believed(tmp_path: Path, announced: int) -> None:
    """Nothing is allocated for it: the process may not grow by as much as the smallest of these."""
    file = tmp_path / "model.safetensors"
    file.write_bytes(announced.to_bytes(8, "little") + b'{"a":1}')
    open_tensors_in_little_memory = f"""
import resource
from pathlib import Path
from emberd.backends.tensors import open_tensors
from emberd.errors import ModelLoadError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    open_tensors(Path({str(file)!r}))
except ModelLoadError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", open_tensors_in_little_memory], capture_output=True, check=True
    )
    assert int(done.stdout) < 8192  # KiB
    with pytest.raises(ModelLoadError):
        open_tensors(file)


# -- where a model is found -----------------------------------------------------------------

SPEC = ModelSpec(name="mine", sources=(Source(hf="me/mine"),), dimensions=8, pooling="mean")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Another model, or what looks like one, outside of where models are kept."""
    return model_folder.write(tmp_path / "outside")


@pytest.mark.parametrize("name", ["model.safetensors", "1_Pooling"])
def test_a_link_out_of_a_repository_is_refused(tmp_path: Path, outside: Path, name: str) -> None:
    snapshot = model_folder.cache(tmp_path / "hub")
    found = snapshot / name
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    found.symlink_to(outside / name)

    with pytest.raises(ModelLoadError, match="leads out"):
        locate(SPEC, hub=tmp_path / "hub", files=MODEL_FILES)


def test_blobs_may_lie_on_another_disk(tmp_path: Path) -> None:
    snapshot = model_folder.cache(tmp_path / "hub")
    blobs = snapshot.parents[1] / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")

    assert locate(SPEC, hub=tmp_path / "hub", files=MODEL_FILES).folder == snapshot


@pytest.mark.parametrize("ref", ["..", "../../../outside", "/outside", "a/b", ""])
def test_a_ref_is_a_commit(tmp_path: Path, ref: str) -> None:
    snapshot = model_folder.cache(tmp_path / "hub")
    ref = f"{tmp_path}/outside" if ref == "/outside" else ref
    (snapshot.parents[1] / "refs" / "main").write_text(ref)
    model_folder.write(tmp_path / "outside")

    assert find_local(SPEC.sources[0], tmp_path / "hub") is None


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a/../b", "", "a//b", "a\0"])
def test_a_revision_is_a_name(tmp_path: Path, revision: str) -> None:
    with pytest.raises(ValueError, match="not a branch, tag or commit"):
        Source(hf="me/mine", revision=revision)
    if "\0" not in revision:
        assert hub_snapshot("me/mine", revision or "..", tmp_path) is None


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries a model; its code must not run."""
    site = tmp_path / "site-packages"
    model = model_folder.write(site / "evil_model")
    (model / "__init__.py").write_text("raise SystemExit('it ran')")
    about = site / "evil_model-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-model\nVersion: 1.0\n")
    (about / "RECORD").write_text("evil_model/config.json,,\nevil_model/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(site))
    return site


PACKAGED = Source(package="evil-model")


def test_a_package_is_searched_and_not_imported(package: Path, tmp_path: Path) -> None:
    assert find_local(PACKAGED, tmp_path) == package / "evil_model"


@pytest.mark.parametrize("record", ["../outside/config.json", "{}/outside/config.json"])
def test_a_package_has_its_files_below_itself(
    package: Path, outside: Path, tmp_path: Path, record: str
) -> None:
    assert outside.is_dir()
    (package / "evil_model-1.0.dist-info" / "RECORD").write_text(record.format(tmp_path) + ",,\n")

    assert find_local(PACKAGED, tmp_path) is None


def test_a_link_out_of_a_package_is_refused(package: Path, outside: Path, tmp_path: Path) -> None:
    weights = package / "evil_model" / "model.safetensors"
    weights.unlink()
    weights.symlink_to(outside / "model.safetensors")
    spec = ModelSpec(name="mine", sources=(PACKAGED,), dimensions=8, pooling="mean")

    with pytest.raises(ModelLoadError, match="leads out"):
        locate(spec, hub=tmp_path, files=MODEL_FILES)


def test_links_of_ones_own_folder_are_ones_own(tmp_path: Path, outside: Path) -> None:
    folder = model_folder.write(tmp_path / "mine")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(outside / "model.safetensors")
    spec = ModelSpec(name="mine", sources=(Source(path=str(folder)),), dimensions=8, pooling="mean")

    assert locate(spec, hub=tmp_path, files=MODEL_FILES).folder == folder


FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"me/mine": FILES}) as running:
        yield running


def listing(**odd: object) -> dict[str, Any]:
    """Return what a Hub says of a repository, some of it a lie."""
    weights = {
        "rfilename": odd.get("name", "model.safetensors"), "size": 7, "blobId": "b" * 40,
        "lfs": {"sha256": odd.get("sha256", sha256(b"weights")), "size": 7, "pointerSize": 1},
    }  # fmt: skip
    small = [{"rfilename": name, "size": 2, "blobId": "b" * 40} for name in list(FILES)[:2]]
    return {"id": "me/mine", "sha": odd.get("sha", COMMIT), "siblings": [weights, *small]}


@pytest.mark.parametrize(
    "odd",
    [
        {"name": "../../../../evil_Dense/model.safetensors"},
        *(
            pytest.param(odd, marks=pytest.mark.slow)
            for odd in (
                {"name": "/tmp/evil_Dense/model.safetensors"},  # noqa: S108 - nothing is written
                {"name": "evil_Dense/../../../../model.safetensors"},
                {"sha256": "../../../../evil"},
                {"sha256": "x" * 64},
                {"sha": "/evil"},
            )
        ),
        {"sha": "../../../evil"},
    ],
    ids=str,
)
def test_a_hub_that_names_files_outside_is_not_believed(
    tmp_path: Path, hub: Hub, odd: dict[str, object]
) -> None:
    said = json.dumps(listing(**odd)).encode()
    hub.answer_instead = lambda _method, path: (
        Answer(200, said, {"Content-Type": "application/json"}) if "/api/" in path else None
    )
    cache = tmp_path / "a" / "b" / "hub"
    with Fetcher(tmp_path / "home", hub.url) as fetcher:
        error = fetcher.fetch(cache, Source(hf="me/mine")).error

    assert "something other than the Hub answered" in error
    assert not hub.downloaded()
    assert not list(tmp_path.rglob("*evil*"))
