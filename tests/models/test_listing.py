"""The rows of `emberd list`: what is here, and the disk that it takes."""

from pathlib import Path

from emberd.hashing import FileHash
from emberd.models.compiled import compiled_key
from emberd.models.listing import list_models, unused_bytes
from emberd.models.remove import Places
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry, LockFile
from tests import model_folder
from tests.serving import age

FILES = {"model.safetensors": FileHash(sha256="0" * 64, size=1, mtime_ns=1, inode=1)}


def test_a_model_that_is_here_has_sizes_and_one_that_is_not_has_none(tmp_path: Path) -> None:
    folder = model_folder.write(tmp_path / "own")
    here = ModelSpec(
        name="here", aliases=("h",), sources=(Source(path=str(folder)),), dimensions=8,
        pooling="mean",
    )  # fmt: skip
    away = ModelSpec(name="away", sources=(Source(hf="me/away"),), dimensions=4, pooling="cls")
    lock = LockFile(tmp_path / "state")
    source = f"path:{folder}"
    lock.put("here", LockEntry(source=source, folder=str(folder), fingerprint="space", files=FILES))
    places = Places(hub=tmp_path / "hub", cache=tmp_path / "cache", lock=lock)
    copy = places.cache / "openvino" / compiled_key(here, FILES)
    copy.mkdir(parents=True)
    (copy / "it.blob").write_bytes(b"x" * 9000)

    first, second = list_models(Catalog([here, away]), away, places)

    assert (first.name, first.aliases, first.sources) == ("here", ["h"], [source])
    assert (first.pulled, first.default, first.fingerprint) == (True, False, "space")
    assert (first.folder, second.folder) == (str(folder), None)
    assert first.files_bytes > 0
    assert first.compiled_bytes >= 9000
    assert (second.pulled, second.default, second.fingerprint) == (False, True, None)
    assert (second.files_bytes, second.compiled_bytes) == (0, 0)


def test_compiled_copies_of_no_entry_are_counted(tmp_path: Path) -> None:
    places = Places(hub=tmp_path, cache=tmp_path / "cache", lock=LockFile(tmp_path / "state"))
    stray = places.cache / "openvino" / "stray"
    stray.mkdir(parents=True)
    (stray / "it.blob").write_bytes(b"x" * 9000)
    age(stray)
    spec = ModelSpec(name="mine", sources=(Source(hf="me/mine"),), dimensions=4, pooling="cls")

    assert unused_bytes(Catalog([spec]), places) >= 9000
