"""What removing models deletes, and what it leaves to others."""

from pathlib import Path

import pytest

from emberd.errors import RequestError
from emberd.hashing import FileHash
from emberd.models.compiled import compiled_key
from emberd.models.remove import Places, own_sources, plan_removal, remove
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry, LockFile
from tests import model_folder
from tests.serving import age

FILES = {"model.safetensors": FileHash(7, 1, 1, "ab")}


def model(name: str, *sources: Source, pooling: str = "mean") -> ModelSpec:
    return ModelSpec(name=name, sources=sources, dimensions=8, pooling=pooling)  # type: ignore[arg-type]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(hub=tmp_path / "hub", cache=tmp_path / "cache", lock=LockFile(tmp_path / "state"))


def load(places: Places, spec: ModelSpec, snapshot: Path) -> Path:
    """Note a model as loaded from a snapshot; return the folder of its compiled copy."""
    source, folder = str(spec.sources[0]), str(snapshot)
    places.lock.put(spec.name, LockEntry(source=source, folder=folder, files=FILES))
    copy = places.cache / "openvino" / compiled_key(spec, FILES)
    model_folder.write(copy, {"blob": b"x" * 5000})
    return copy


def test_a_model_goes_with_its_compiled_copy_and_is_forgotten(places: Places) -> None:
    mine = model("mine", Source(hf="me/mine"))
    copy = load(places, mine, model_folder.cache(places.hub))
    catalog = Catalog([mine])

    planned = plan_removal([mine], catalog, places, shared=False)
    done = remove(planned, catalog, places)

    assert (planned.repositories, planned.affected) == (["me/mine"], {"mine"})
    assert done.repositories["me/mine"] > 0
    assert done.compiled_bytes > 0
    assert not copy.exists()
    assert not (places.hub / "models--me--mine").exists()
    assert places.lock.read() == {}


def test_files_that_another_model_uses_stay_unless_that_is_meant(places: Places) -> None:
    mine, other = (model(name, Source(hf="me/mine")) for name in ("mine", "other"))
    snapshot = model_folder.cache(places.hub)
    copy = load(places, mine, snapshot)
    load(places, other, snapshot)
    catalog = Catalog([mine, other])

    kept = plan_removal([mine], catalog, places, shared=False)
    done = remove(kept, catalog, places)

    assert (kept.repositories, kept.kept, kept.losing) == ([], {"me/mine": ["other"]}, [])
    assert (done.repositories, done.compiled_bytes) == ({}, 0)
    assert snapshot.exists()
    assert copy.exists()
    left = places.lock.read()
    assert (left["mine"].is_removed, left["other"].is_removed) == (True, False)

    meant = plan_removal([mine], catalog, places, shared=True)

    assert (meant.repositories, meant.kept, meant.losing) == (["me/mine"], {}, ["other"])
    assert meant.affected == {"mine", "other"}


def test_copies_that_no_model_leads_to_go_too(places: Places) -> None:
    mine = model("mine", Source(hf="me/mine"))
    orphan = model_folder.write(places.cache / "openvino" / "0123456789abcdef", {"blob": b"x"})
    age(orphan)

    done = remove(
        plan_removal([mine], Catalog([mine]), places, shared=False), Catalog([mine]), places
    )

    assert done.compiled_bytes > 0
    assert not orphan.exists()


def test_folders_of_the_user_and_packages_are_not_planned(places: Places, tmp_path: Path) -> None:
    folder = Source(path=str(model_folder.write(tmp_path / "own")))
    mine = model("mine", folder, Source(path="/nowhere"), Source(hf="me/mine"))

    planned = plan_removal([mine], Catalog([mine]), places, shared=True)
    remove(planned, Catalog([mine]), places)

    assert own_sources([mine, mine], places.hub) == [folder]
    assert (tmp_path / "own" / "config.json").exists()


def test_what_cannot_be_deleted_is_named(places: Places) -> None:
    mine = model("mine", Source(hf="me/mine"))
    model_folder.cache(places.hub)
    in_the_way = model_folder.write(places.hub, {".models--me--mine.removed": b"a file"})

    with pytest.raises(RequestError, match="cannot be removed"):
        remove(plan_removal([mine], Catalog([mine]), places, shared=False), Catalog([mine]), places)
    assert in_the_way.exists()
