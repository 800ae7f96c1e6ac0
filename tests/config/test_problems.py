"""Which name was meant, and what a value is in plain words."""

import pytest

from emberd.config.problems import kind_of, nearest
from emberd.config.settings import Settings, leaves_of

NAMES = ["server.port", "server.host", "limits.max_loaded"]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("port", "server.port"),  # the end of a name
        ("limits.max_loded", "limits.max_loaded"),
        ("xyzzy", None),
    ],
)
def test_the_nearest_name_is_the_one_that_was_meant(wrong: str, meant: str | None) -> None:
    assert nearest(wrong, NAMES, ".") == meant


def test_values_are_named_in_plain_words() -> None:
    values: tuple[object, ...] = (True, 1, 1.5, "a", [], {})
    kinds = ["true or false", "a number", "a number", "text", "a list", "something else"]

    assert list(map(kind_of, values)) == kinds


def test_every_setting_with_a_fixed_name_is_a_leaf() -> None:
    leaves = leaves_of(Settings())

    assert ("default",) in leaves
    assert ("limits", "max_texts") in leaves
    assert not [leaf for leaf in leaves if leaf[0] == "stores"]
