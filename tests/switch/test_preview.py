"""What another default would mean for the stores that follow it, and what else to run."""

from pathlib import Path

import numpy as np
import pytest

from emberd.config.load import Config, load_config
from emberd.spaces.stores import KnownStore, StoresFile
from emberd.switch.preview import StoreEffect, affected_stores, preview
from tests.migrate import stores


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Two stores that follow the default, `gone` of which does not exist, and one that does not."""
    stores.make_cmem(tmp_path / "notes", ["text"], np.ones((1, 384), "<f4"))
    (tmp_path / "config.yaml").write_text(
        "stores:\n  notes: {path: notes}\n  gone: {path: gone}\n"
        "  own: {path: notes, model: minilm}\n"
    )
    environ = {"EMBERD_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hub")}
    return load_config(environ=environ)


def note(config: Config, model: str, fingerprint: str) -> None:
    path = str(config.homes.config.parent / "notes" / "memories.db")
    known = KnownStore(path=path, kind="cmem", model=model, fingerprint=fingerprint)
    StoresFile(config.homes.state).put("notes", known)


def effects(config: Config, name: str = "mpnet") -> dict[str, StoreEffect]:
    found = affected_stores(config, config.catalog.get(name), {})
    return {effect.name: effect for effect in found}


def test_of_a_store_without_a_record_it_is_not_known(config: Config) -> None:
    found = effects(config)

    assert (found["notes"].verdict, found["notes"].why) == ("unknown", None)
    assert found["gone"].verdict == "unknown"
    assert found["gone"].why
    assert "own" not in found


def test_a_store_of_another_model_has_to_be_embedded_again(config: Config) -> None:
    note(config, "minilm", "aa")

    assert effects(config, "mpnet")["notes"].verdict == "re-embed"
    assert "notes" not in effects(config, "minilm")


def test_a_store_that_could_not_be_recovered_is_not_opened(config: Config) -> None:
    found = affected_stores(config, config.catalog.get("mpnet"), {"notes": "it is locked"})

    notes = next(effect for effect in found if effect.name == "notes")
    assert (notes.verdict, notes.path) == ("unknown", str(config.homes.config.parent / "notes"))
    assert "it is locked" in (notes.why or "")


@pytest.mark.parametrize("migrates", [False, True])
def test_it_says_what_to_run(config: Config, migrates: bool) -> None:
    found = preview(config, "bge", unreadable={}, server=None, migrates=migrates)

    pull, migrate = "emberd pull bge-small", "emberd use bge-small --migrate"
    assert (found.before, found.name, found.dimensions) == ("minilm", "bge-small", (384, 384))
    assert (found.space.verdict, found.is_here) == ("unknown", False)
    assert [store.name for store in found.stores] == ["notes", "gone"]
    assert found.run == [pull] if migrates else [pull, migrate]
    assert found.to_dict()["space"] == {"verdict": "unknown", "why": found.space.why}


def test_within_the_same_space_only_stores_that_cannot_be_read_are_named(config: Config) -> None:
    found = preview(config, "minilm", unreadable={}, server="http://here", migrates=False)

    assert (found.space.verdict, found.is_here, found.server) == ("same", True, "http://here")
    assert [store.name for store in found.stores] == ["gone"]
    assert found.run == []


def test_without_stores_nothing_is_affected(tmp_path: Path) -> None:
    config = load_config(environ={"EMBERD_HOME": str(tmp_path)})

    assert affected_stores(config, config.catalog.get("mpnet"), {}) == []
