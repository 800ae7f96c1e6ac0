"""Whatever a config file holds, it is in order or a ConfigError; nothing else ever comes out."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emberd.config.load import load_config
from emberd.config.settings import LimitsSettings, ServerSettings
from emberd.errors import ConfigError
from emberd.registry.spec import ModelSpec

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from(["minilm", "1h", "4GiB", "a/b", "~", "~nobody-here/x", "mean", "\x00", "<<"])
)
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
        "models": st.dictionaries(
            st.sampled_from(["minilm", "mpnet", "mine"]) | SCALARS, ENTRIES | DATA, max_size=3
        )
        | DATA,
    },
)


def load(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "config.yaml").write_bytes(content)
        try:
            load_config(environ={"EMBERD_HOME": home})
        except ConfigError as error:
            assert str(Path(home, "config.yaml")) in error.message  # noqa: PT017 - or no error


@settings(deadline=None)
@given(FILES | DATA)
def test_any_data_is_a_config_or_a_config_error(data: object) -> None:
    load(yaml.safe_dump(data, allow_unicode=True).encode())


@settings(deadline=None)
@given(st.binary() | st.text().map(str.encode) | st.text(alphabet="{}[]:,-&*!|> \n\t'\"ab1#%@`?"))
def test_any_bytes_are_a_config_or_a_config_error(content: str | bytes) -> None:
    load(content if isinstance(content, bytes) else content.encode())
