"""What is remembered about stores, and when the server warns."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from emberd.config.load import load_config
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockEntry
from emberd.spaces.stores import KnownStore, StoresFile, warnings

ENTRY = LockEntry(
    source="path:x", folder="x", fingerprint="aa", fingerprints={"384": "aa", "128": "cc"},
    equivalent=("bb",),
)  # fmt: skip
SERVED = {"notes": None}  # configured, and its users name no model


@pytest.fixture
def store(tmp_path: Path) -> KnownStore:
    path = tmp_path / "memories.db"
    path.touch()
    return KnownStore(path=str(path), kind="cmem", model="minilm", fingerprint="aa")


@pytest.fixture
def default(tmp_path: Path) -> ModelSpec:
    return load_config(environ={"EMBERD_HOME": str(tmp_path)}).catalog.get("minilm")


def test_a_store_is_kept_replaced_and_forgotten(tmp_path: Path, store: KnownStore) -> None:
    file = StoresFile(tmp_path / "state")
    assert file.read() == {}

    file.put("notes", store)
    file.put("other", replace(store, model=None))
    file.put("other", None)

    assert file.read() == {"notes": store}
    assert StoresFile(tmp_path / "state").read() == {"notes": store}


@pytest.mark.parametrize("content", ["", "[]", '{"stores": {"a": 1}}', '{"stores": {"a": {}}}'])
def test_a_damaged_file_counts_as_empty_and_is_replaced(
    tmp_path: Path, store: KnownStore, content: str
) -> None:
    (tmp_path / "stores.json").write_text(content)
    assert StoresFile(tmp_path).read() == {}

    StoresFile(tmp_path).put("notes", store)

    assert StoresFile(tmp_path).read() == {"notes": store}


@pytest.mark.parametrize("fingerprint", ["aa", "bb", "cc"])
def test_a_store_in_the_space_of_the_default_is_nothing_to_warn_of(
    store: KnownStore, default: ModelSpec, fingerprint: str
) -> None:
    stored = replace(store, fingerprint=fingerprint)

    assert warnings({"notes": stored}, SERVED, default, {"minilm": ENTRY}) == []


def test_another_space_is_warned_of_with_what_to_do(store: KnownStore, default: ModelSpec) -> None:
    stored = replace(store, model="mpnet", fingerprint="dd")

    (warning,) = warnings({"notes": stored}, SERVED, default, {"minilm": ENTRY})

    assert warning["message"] == (
        "The store notes holds vectors made by mpnet, and the default is minilm."
    )
    assert warning["hint"] == (
        "Run `emberd migrate run notes --to minilm`, or make mpnet the default again."
    )


def test_the_name_of_a_store_is_quoted_for_the_shell(store: KnownStore, default: ModelSpec) -> None:
    stored = replace(store, model="mpnet", fingerprint="dd")

    (warning,) = warnings({"my notes": stored}, {"my notes": None}, default, {"minilm": ENTRY})

    assert "`emberd migrate run 'my notes' --to minilm`" in warning["hint"]


def test_names_decide_while_nothing_is_known_of_the_default(
    store: KnownStore, default: ModelSpec
) -> None:
    assert warnings({"notes": store}, SERVED, default, {}) == []
    assert len(warnings({"notes": replace(store, model="mpnet")}, SERVED, default, {})) == 1


def test_mixed_vectors_never_fit(store: KnownStore, default: ModelSpec) -> None:
    mixed = replace(store, model=None, fingerprint=None)

    (warning,) = warnings({"notes": mixed}, SERVED, default, {"minilm": ENTRY})

    assert "of more than one model" in warning["message"]


def test_a_store_whose_users_name_their_model_does_not_follow_the_default(
    store: KnownStore, default: ModelSpec
) -> None:
    stored = {"notes": replace(store, model="mpnet", fingerprint="dd")}
    entry = replace(ENTRY, fingerprint="dd", fingerprints={})
    served = {"notes": "mpnet"}

    assert warnings(stored, served, default, {"minilm": ENTRY, "mpnet": entry}) == []
    (warning,) = warnings(stored, served, default, {"mpnet": ENTRY})
    assert "what its users ask for is mpnet" in warning["message"]


def test_only_configured_stores_are_warned_of(store: KnownStore, default: ModelSpec) -> None:
    stored = replace(store, model="mpnet")

    assert warnings({store.path: stored}, SERVED, default, {}) == []
    assert len(warnings({store.path: stored, "notes": stored}, SERVED, default, {})) == 1


def test_what_older_versions_noted_is_read(tmp_path: Path, store: KnownStore) -> None:
    older = {**asdict(store), "served_by": "mpnet"}
    (tmp_path / "stores.json").write_text(json.dumps({"version": 1, "stores": {"notes": older}}))

    assert StoresFile(tmp_path).read() == {"notes": store}
