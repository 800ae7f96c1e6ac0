"""Whatever a config file holds, it is in order or a ConfigError; nothing else ever comes out.

What is in order can be shown, compared, and sent to a worker.
"""

import io
import json
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from emberd.config.difference import differences
from emberd.config.dump import dump_entry, dump_settings
from emberd.config.load import Config, load_config
from emberd.config.settings import LimitsSettings, LogSettings, ServerSettings, StoreSettings
from emberd.errors import ConfigError, UnknownModelError
from emberd.models.availability import find_here
from emberd.registry.spec import ModelSpec
from emberd.worker import wire
from tests.fuzz.cases import fuzz

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from([
        "minilm", "1h", "4GiB", "a/b", "~", "~nobody-here/x", "mean", "\x00", "<<", "1e999", "-1s",
        "9" * 400 + "s", "9" * 400 + "GiB", "never", "../../x", "/", "/dev/null/x", "/a\x00b",
        "{0}", "9" * 5000,
    ])
)  # fmt: skip
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=10,
)


def with_keys_of(cls: type) -> st.SearchStrategy[Mapping[str, Any]]:
    """Give right names to wrong values."""
    names = st.sampled_from([field.name for field in fields(cls)])
    return st.dictionaries(names, DATA, max_size=4)


SOURCES = st.lists(st.dictionaries(st.sampled_from(["hf", "path", "package"]), SCALARS, max_size=2))
ENTRIES = with_keys_of(ModelSpec) | st.fixed_dictionaries(
    {"sources": SOURCES, "dimensions": st.integers(1, 9), "pooling": st.just("mean")},
    optional={"aliases": st.lists(st.text(max_size=3)), "matryoshka": st.lists(st.integers())},
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        "default": DATA,
        "server": with_keys_of(ServerSettings) | DATA,
        "limits": with_keys_of(LimitsSettings) | DATA,
        "log": with_keys_of(LogSettings) | DATA,
        "stores": st.dictionaries(st.text(max_size=5), with_keys_of(StoreSettings), max_size=2)
        | DATA,
        "models": st.dictionaries(
            st.sampled_from(["minilm", "mpnet", "mine"]) | SCALARS, ENTRIES | DATA, max_size=3
        )
        | DATA,
    },
)


def load(content: bytes) -> Config | None:
    """Load a file; None when it is refused."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "config.yaml").write_bytes(content)
        try:
            config = load_config(environ={"EMBERD_HOME": home})
        except ConfigError as error:
            assert str(Path(home, "config.yaml")) in error.message  # noqa: PT017 - or no error
            return None
        use(config)
        return config


def use(config: Config) -> None:
    """Do with a configuration what a server does."""
    json.dumps([dump_settings(config.settings), *map(dump_entry, config.catalog)])
    assert not differences(config, config)
    for spec in config.catalog:
        start = wire.Start(version="", spec=asdict(spec), hub="", cache="", lock=None)
        received = wire.read(io.BytesIO(wire.encode(start)))
        assert received and isinstance(received.frame, wire.Start)
        assert ModelSpec.from_dict(received.frame.spec).runs_as(spec)
        assert (spec.idle_unload or math.inf) > 0
    assert 0 < config.settings.limits.memory_budget < math.inf


@fuzz(FILES | DATA)
def test_any_data(data: object) -> None:
    load(yaml.safe_dump(data, allow_unicode=True).encode())


@fuzz(FILES)
def test_any_data_as_json(data: object) -> None:
    load(json.dumps(data, default=str, skipkeys=True).encode())


@fuzz(st.binary() | st.text().map(str.encode) | st.text(alphabet="{}[]:,-&*!|> \n\t'\"ab1#%@`?"))
def test_any_bytes(content: str | bytes) -> None:
    load(content if isinstance(content, bytes) else content.encode())


WORDS = st.sampled_from([
    "models:", "minilm:", "limits:", "server:", "default:", "port:", "max_loaded:", "idle_unload:",
    "sources:", "- ", "  ", "    ", "\n", "\n  ", "\n    ", "&a ", "*a ", "&b ", "*b ", "<<: ",
    "? ", "[", "]", "{", "}", ",", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ",
    "!!binary ", "!!set ", "!!omap ", "!!pairs ", "!!map ", "!!seq ", "!!str ",
    "!!python/object:os.system ", "!x ", "%YAML 1.2\n", "--- ", "... ", "| ", "> ", "'", '"', "#",
    "1", "0x", "0b", "1:30", "1:30.5", "2001-01-01", "2001-99-99", "9:" * 200 + "9.5", "1_000",
    ".inf", ".nan", "~", "yes", "maybe", "\t", "\\ud800", "\ufeff", "\x85", "\u2028", "mean",
    "hf: a/b", "path: /x", "=",
])  # fmt: skip


@fuzz(st.lists(WORDS, max_size=25).map("".join))
def test_any_yaml(content: str) -> None:
    load(content.encode())


NAMES = st.sampled_from(
    ["a", "a/b", "..", "../..", "/etc", "main", "v1", "a\x00b", "~", "refs/pr/1", ""]
)


@fuzz(
    st.dictionaries(
        st.sampled_from(["hf", "path", "package", "revision"]),
        NAMES | st.text(max_size=6),
        min_size=1,
    ),
    st.text(max_size=300),
)
def test_any_source_and_name(places: dict[str, str], name: str) -> None:
    entry = {"sources": [places], "dimensions": 8, "pooling": "mean"}
    config = load(json.dumps({"models": {"mine": entry}}).encode())
    if not config:
        return
    with suppress(UnknownModelError):
        config.catalog.get(name)
    with tempfile.TemporaryDirectory() as hub:
        found = find_here(config.catalog.get("mine"), Path(hub), None)
        assert found is None or found.source.path
