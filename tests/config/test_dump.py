"""Settings and models as plain data: all of them, or only what somebody has set."""

from pathlib import Path

import pytest

from emberd.config import starter
from emberd.config.dump import dump, dump_what_was_set, entry_defaults
from emberd.config.load import load_config
from emberd.errors import ConfigError
from tests.config.conftest import Load

MINE = "sources: [{path: mine}], dimensions: 8, pooling: cls"


def test_everything_is_in_the_form_of_the_file(load: Load) -> None:
    store = "{path: here, chunk: {size: 200, kind: code, language: go}}"
    whole = dump(load(f"limits: {{idle_unload: 90}}\nstores: {{notes: {store}}}\n"))

    assert whole.settings["limits"]["idle_unload"] == "1m30s"
    assert whole.settings["limits"]["memory_budget"] == "4GiB"
    assert whole.stores["notes"]["path"] == "here"
    assert whole.stores["notes"]["chunk"] == {
        "size": 200, "overlap": 0, "kind": "code", "language": "go", "late": False,
    }  # fmt: skip
    assert whole.models["minilm"]["dimensions"] == 384
    assert "name" not in whole.models["minilm"]


def test_an_empty_file_sets_nothing(load: Load) -> None:
    found = dump_what_was_set(load(""))

    assert (found.settings, found.stores, found.models) == ({}, {}, {})


def test_what_was_set_is_there_wherever_it_was_set(load: Load, tmp_path: Path) -> None:
    config = load(
        f"limits: {{max_loaded: 3}}\nmodels:\n  minilm: {{pinned: true}}\n  mine: {{{MINE}}}\n",
        environ={"EMBERD_SERVER_PORT": "9000"},
        flags={("default",): "mpnet"},
    )

    found = dump_what_was_set(config)

    assert found.settings == {
        "default": "mpnet",
        "server": {"port": 9000},
        "limits": {"max_loaded": 3},  # also where it says what the default is
    }
    assert found.models["minilm"] == {"pinned": True}
    assert found.models["mine"] == {
        "sources": [{"path": str(tmp_path / "mine")}], "dimensions": 8, "pooling": "cls",
    }  # fmt: skip


def test_required_keys_have_no_default() -> None:
    assert not {"sources", "dimensions", "pooling"} & entry_defaults().keys()
    assert entry_defaults()["pinned"] is False


def test_the_first_file_changes_nothing_and_is_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.yaml"

    starter.write(file)

    environ = {"HOME": str(tmp_path), "EMBERD_HOME": str(tmp_path)}
    assert (
        load_config(config=file, environ=environ).settings == load_config(environ=environ).settings
    )
    file.write_text("default: mpnet\n")
    with pytest.raises(ConfigError, match=str(file)):
        starter.write(file)
    assert file.read_text() == "default: mpnet\n"


def test_aliases_are_what_was_set(load: Load) -> None:
    aliases = {"text-embedding-3-small": "bge-small:document"}

    config = load(f"aliases: {aliases}\n")

    assert dump_what_was_set(config).settings == {"aliases": aliases}
    assert dump(config).settings["aliases"] == aliases
