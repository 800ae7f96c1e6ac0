"""Which space an entry gives with its files, before anything is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

from emberd.folder.space import BackendFiles, compare_models, identify, space_today
from emberd.models.availability import LocalCopy
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from emberd.spaces.probes import PROBES, encode
from tests.folders import Folder

BACKEND = BackendFiles("openvino", ("config.json", "tokenizer.json", "model*.safetensors*"))
PROBED = encode([[1.0, 0.0]] * len(PROBES))


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    folder = Folder().write(tmp_path / "model")
    return ModelSpec(
        name="mine", sources=(Source(path=str(folder)),), dimensions=64, pooling="mean",
        matryoshka=(32,), max_tokens=16,
    )  # fmt: skip


def pulled(spec: ModelSpec, before: LockEntry | None = None) -> LockEntry:
    source = spec.sources[0]
    copy = LocalCopy(source, Path(source.path or ""), downloaded=False)
    return identify(spec, copy, BACKEND, before)[0]


def test_files_and_entry_give_a_fingerprint_for_each_size(spec: ModelSpec) -> None:
    entry = pulled(spec)

    assert sorted(entry.fingerprints) == ["32", "64"]
    assert entry.fingerprint == entry.fingerprints["64"] != entry.fingerprints["32"]
    assert entry.options.max_tokens == 16
    assert (entry.backend, entry.engine, entry.probes) == ("openvino", None, "")
    assert set(entry.files) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_files_that_did_not_change_are_not_read_again(spec: ModelSpec) -> None:
    entry = pulled(spec)
    weights = entry.files["model.safetensors"]
    known = replace(entry, files={"model.safetensors": replace(weights, sha256="remembered")})

    assert pulled(spec, known).files["model.safetensors"].sha256 == "remembered"


def test_a_model_that_was_never_loaded_says_why_nothing_is_known(
    spec: ModelSpec, tmp_path: Path
) -> None:
    gone = replace(spec, sources=(Source(path="/nowhere"),))

    assert "never been loaded" in space_today(spec, None, tmp_path).gap
    assert "not here" in space_today(gone, None, tmp_path).gap
    assert compare_models(spec, replace(spec, name="twin"), {}, tmp_path).verdict == "unknown"


def test_probes_count_while_the_entry_is_as_it_was_loaded(spec: ModelSpec, tmp_path: Path) -> None:
    entry = replace(pulled(spec), probes=PROBED)

    now = space_today(spec, entry, tmp_path)
    edited = space_today(replace(spec, max_tokens=8), entry, tmp_path)

    assert (now.probes, now.gap, now.sizes) == (PROBED, "", (64,))
    assert list(now.fingerprints) == [entry.fingerprint]
    assert edited.options.max_tokens == 8
    assert (edited.probes, bool(edited.gap)) == ("", True)


def test_equivalents_count_only_for_the_accepted_state(spec: ModelSpec, tmp_path: Path) -> None:
    entry = replace(pulled(spec), equivalent=("older",))

    assert "older" in space_today(spec, entry, tmp_path).fingerprints
    assert "older" not in space_today(replace(spec, max_tokens=8), entry, tmp_path).fingerprints


def test_two_entries_of_one_folder_are_the_same_unless_their_options_differ(
    spec: ModelSpec, tmp_path: Path
) -> None:
    twin, cut = replace(spec, name="twin"), replace(spec, name="cut", max_tokens=8)
    lock = {each.name: pulled(each) for each in (spec, twin, cut)}

    assert compare_models(spec, twin, lock, tmp_path).verdict == "same"
    assert compare_models(spec, cut, lock, tmp_path).verdict == "another"


def test_other_dimensions_are_another_space_whatever_else_is_known(
    spec: ModelSpec, tmp_path: Path
) -> None:
    wide = replace(spec, name="wide", dimensions=128)

    assert compare_models(spec, wide, {}, tmp_path).verdict == "another"
