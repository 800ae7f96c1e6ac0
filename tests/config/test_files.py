"""What a config file may contain, and the configuration it gives."""

import json
import math
from pathlib import Path

import pytest

from emberd.config.document import read_document, read_own
from emberd.config.load import BUILT_IN
from emberd.config.settings import Settings
from emberd.registry.spec import Source
from tests.config.conftest import Load

MINE = "models:\n  mine:\n    dimensions: 8\n    pooling: last\n    sources:\n"


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "limits:\nserver:\nmodels:\ndefault:\n"])
def test_a_file_that_says_nothing_means_the_defaults(load: Load, text: str) -> None:
    assert load(text).settings == Settings()


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_is_accepted(load: Load, indent: int | str | None) -> None:
    prompts = {"query": '🔥\ttab \u2028 "quote" / naß: '}
    content = {
        "server": {"port": 9000},
        "limits": {"max_texts": 1e3, "idle_unload": "never"},
        "models": {"minilm": {"prompts": prompts}},
    }

    config = load(json.dumps(content, indent=indent))

    assert config.settings.server.port == 9000
    assert (config.settings.limits.max_texts, config.settings.limits.idle_unload) == (
        1000,
        math.inf,
    )
    assert config.catalog.get("minilm").prompts == prompts


def test_a_model_of_ones_own_has_the_defaults_of_what_it_leaves_out(load: Load) -> None:
    mine = load(MINE + "    - hf: me/mine\n      revision: v1\n").catalog.get("mine")

    assert mine.sources == (Source(hf="me/mine", revision="v1"),)
    assert (mine.dimensions, mine.pooling) == (8, "last")
    assert (mine.normalize, mine.max_tokens, mine.precision, mine.compute) == (
        True, None, "f32", "auto",
    )  # fmt: skip
    assert (mine.matryoshka, mine.prompts, mine.backend) == ((), {}, "auto")
    assert (mine.idle_unload, mine.pinned, mine.aliases) == (None, False, ())


def test_an_entry_is_merged_over_the_built_in_one_key_by_key(load: Load) -> None:
    built_in = load("").catalog.get("bge-small")

    mine = load("models: {bge-small: {idle_unload: 1h, prompts: {document: d}}}").catalog.get("bge")

    assert (mine.idle_unload, mine.prompts) == (3600.0, {"document": "d"})
    assert (mine.sources, mine.dimensions, mine.pooling, mine.max_tokens, mine.precision) == (
        built_in.sources,
        built_in.dimensions,
        built_in.pooling,
        built_in.max_tokens,
        built_in.precision,
    )


def test_an_entry_leaves_the_other_models_alone(load: Load) -> None:
    before = {spec.name: spec for spec in load("").catalog}

    after = {spec.name: spec for spec in load(MINE + "    - hf: me/mine").catalog}

    assert after.pop("mine").public_id == "me/mine"
    assert after == before


def test_null_takes_a_built_in_value_back(load: Load) -> None:
    assert load("models: {minilm: {max_tokens: null}}").catalog.get("minilm").max_tokens is None


def test_a_model_knows_where_it_comes_from(load: Load) -> None:
    config = load("\nmodels:\n  mpnet: {pinned: true}\n")

    assert config.origins["models.mpnet"] == f"{config.homes.config}:3"
    assert config.origins["models.minilm"] == "built in"


def test_a_name_may_look_like_a_number(load: Load) -> None:
    config = load("default: '7'\nmodels: {7: {dimensions: 8, pooling: cls, sources: [{hf: a/b}]}}")

    assert config.catalog.get("7").name == "7"


def test_a_model_of_ones_own_may_be_the_default(load: Load) -> None:
    assert load("default: mine\n" + MINE + "    - hf: me/mine").settings.default == "mine"


def test_a_path_is_relative_to_the_config_file(load: Load, tmp_path: Path) -> None:
    mine = load(MINE + "    - path: models/mine\n    - path: /elsewhere\n").catalog.get("mine")

    assert [source.path for source in mine.sources] == [
        str(tmp_path / "models" / "mine"),
        "/elsewhere",
    ]


def test_a_path_may_begin_at_the_home(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))

    mine = load(MINE + "    - path: ~/models\n    - path: ~nobody-here/x\n").catalog.get("mine")

    assert [source.path for source in mine.sources] == [
        str(tmp_path / "me" / "models"),
        str(tmp_path / "~nobody-here" / "x"),
    ]


def test_anchors_and_merge_keys_work(load: Load) -> None:
    config = load(
        "models:\n"
        "  one: &one {dimensions: 8, pooling: mean, sources: [{hf: a/b}]}\n"
        "  two: {<<: *one, pooling: cls}\n"
    )

    assert config.catalog.get("two").pooling == "cls"
    assert config.catalog.get("two").dimensions == 8


def test_the_built_in_entries_are_as_whole_and_unambiguous_as_a_users() -> None:
    assert read_own(BUILT_IN) == read_document(BUILT_IN).data


def test_aliases_mean_models_and_may_state_a_role(load: Load) -> None:
    aliases = {
        "text-embedding-3-small": "bge-small:document", "BAAI/bge-small-en-v1.5": "e5-small",
        "all-minilm": "bge:query", "null": "minilm", "with space": "minilm:latest",
    }  # fmt: skip

    config = load(json.dumps({"default": "null", "aliases": aliases}))

    found = {alias: config.catalog.find(alias).label for alias in aliases}
    assert found == {
        "text-embedding-3-small": "bge-small:document", "BAAI/bge-small-en-v1.5": "e5-small",
        "all-minilm": "bge-small:query", "null": "minilm", "with space": "minilm",
    }  # fmt: skip
    assert config.catalog.get("all-MiniLM-L6-v2").name == "minilm"  # the entry's own go on
    assert "all-minilm" not in config.catalog.names(config.catalog.get("minilm"))
    assert config.origins["aliases.null"].endswith("config.yaml:1")
