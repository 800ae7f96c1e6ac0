"""Whether a model's next start would find all that it needs."""

import os
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from emberd import __version__
from emberd.hashing import hash_file
from emberd.models.compiled import compiled_key
from emberd.models.prepared import is_in_vain, is_prepared
from emberd.processor import processor_key
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from tests import model_folder

ENGINE = f"emberd {__version__}, openvino {metadata.version('openvino')}-a-build"


class Place:
    """A model that was loaded, and what is remembered about it."""

    def __init__(self, at: Path) -> None:
        self.folder = model_folder.write(at / "own")
        self.cache = at / "cache"
        self.spec = ModelSpec(
            name="mine", sources=(Source(path=str(self.folder)),), dimensions=8, pooling="mean"
        )
        files = {name: hash_file(self.folder / name, None) for name in model_folder.FILES}
        self.compiled = self.cache / "openvino" / compiled_key(self.spec, files) / "it.blob"
        self.compiled.parent.mkdir(parents=True)
        self.compiled.touch()
        self.entry = LockEntry(
            source=f"path:{self.folder}",
            folder=str(self.folder),
            files=files,
            backend="openvino",
            engine=ENGINE,
            started_for=self.spec.load_key,
            processor=processor_key(),
            kept=(self.compiled.name,),
        )

    def is_prepared(self, **changes: object) -> bool:
        """Ask, with an entry of the registry that says something else."""
        spec = replace(self.spec, **changes)  # type: ignore[arg-type]
        return is_prepared(spec, self.folder, self.cache, self.entry)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A model that was loaded."""
    return Place(tmp_path)


def test_a_model_that_was_loaded_like_this_is(place: Place) -> None:
    assert place.is_prepared()
    assert place.is_prepared(aliases=("other",), pinned=True, replicas=4)
    changed = replace(place.entry, folder="", changed_to=place.entry, cosine=0.5)
    assert is_prepared(place.spec, place.folder, place.cache, changed)


def test_a_backend_that_keeps_nothing_has_nothing_to_prepare(place: Place) -> None:
    place.compiled.unlink()
    place.entry = replace(place.entry, kept=())

    assert place.is_prepared()


def test_one_that_was_compiled_before_our_code_changed_is_not(place: Place) -> None:
    os.utime(place.compiled, (1, 1))

    assert not place.is_prepared()


def test_another_entry_is_not(place: Place) -> None:
    assert not place.is_prepared(compute="f32")
    assert not place.is_prepared(max_tokens=16)
    assert not place.is_prepared(prompts={"query": "q: "})


def test_one_that_was_never_loaded_is_not(place: Place) -> None:
    assert not is_prepared(place.spec, place.folder, place.cache, None)
    place.entry = replace(place.entry, started_for="", engine=None)
    assert not place.is_prepared()


def test_changed_or_missing_files_are_not(place: Place, tmp_path: Path) -> None:
    assert not is_prepared(place.spec, tmp_path, place.cache, place.entry)
    weights = place.folder / "model.safetensors"
    weights.write_bytes(b"other weights")
    assert not place.is_prepared()
    weights.unlink()
    assert not place.is_prepared()


def test_a_compiled_model_that_is_gone_is_not(place: Place) -> None:
    place.compiled.unlink()

    assert not place.is_prepared()
    assert not is_in_vain(place.spec, place.entry)


def test_one_that_was_loaded_on_another_processor_is_not(place: Place) -> None:
    place.entry = replace(place.entry, processor="another")

    assert not place.is_prepared()


def test_one_that_could_not_be_stored_is_not_and_was_tried_in_vain(place: Place) -> None:
    place.compiled.unlink()
    place.entry = replace(place.entry, stored=False)

    assert not place.is_prepared()
    assert is_in_vain(place.spec, place.entry)
    assert not is_in_vain(replace(place.spec, compute="f32"), place.entry)
    assert not is_in_vain(place.spec, replace(place.entry, processor="another"))
    assert not is_in_vain(place.spec, None)


@pytest.mark.parametrize(
    "engine",
    [
        "emberd 0.0.1",
        f"emberd {__version__}, openvino 2020.1.0",
        f"emberd {__version__}, openvino {metadata.version('openvino')}9",
        f"emberd {__version__}, such-a-library 1.0",
        f"emberd {__version__}, ",
        None,
    ],
)
def test_other_libraries_are_not(place: Place, engine: str | None) -> None:
    place.entry = replace(place.entry, engine=engine)

    assert not place.is_prepared()


def test_a_library_that_a_backend_can_do_without_may_be_missing(place: Place) -> None:
    place.entry = replace(place.entry, engine=f"{ENGINE}, such-a-library unknown")

    assert place.is_prepared()
