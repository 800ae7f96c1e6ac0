"""A card's metadata: what is used of it, whatever else is in it."""

import tempfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emberd.config.document import read_own
from emberd.proposal.card import Card, read_card
from emberd.proposal.families import TABLE, find_family
from emberd.registry.spec import InputType


@pytest.mark.parametrize(
    ("text", "card"),
    [
        ("# no metadata\nlicense: mit\n", Card()),
        ("---\nlicense: mit\n---", Card(licence="mit")),
        ("---\r\nlicense: mit\r\nlanguage: no\r\n---\r\n", Card(licence="mit", languages=("no",))),
        (
            "---\nlicense: other\nlicense_name: tongyi\nbase_model:\n  - a/b\n  - c/d\n---\n",
            Card(licence="tongyi", base_models=("a/b", "c/d")),
        ),
        ("---\nlicense: other\n---\n", Card(licence="other")),
        ("---\nlicense: [mit, {a: b}]\nlanguage: {}\n---\n", Card(licence="mit")),
        ("---\nmodel-index:\n- a: [\nlicense: mit\n---\n", Card(licence="mit")),
        ('---\nlicense: "m\\e[31mit\\n"\n---\n', Card(licence="m[31mit")),
    ],
)
def test_the_few_keys_that_are_used_are_found(tmp_path: Path, text: str, card: Card) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())

    assert read_card(tmp_path) == card


@pytest.mark.parametrize("text", ["---\nlicense: [\n---\n", "---\nlicense: *gone\n---\n"])
def test_a_damaged_card_says_nothing_but_that(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)

    assert read_card(tmp_path) == Card(problem="the metadata in README.md cannot be read")


def test_a_card_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert read_card(tmp_path) == Card(problem="there is no README.md")


@settings(deadline=None)
@given(
    st.text() | st.lists(st.text(alphabet="license:base_model \n-[]{}&*!|>'\"#%@a\t")).map("".join)
)
def test_no_card_is_too_odd(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "README.md").write_bytes(
            f"---\nlicense: {text}\n---\n".encode(errors="replace")
        )

        card = read_card(Path(folder))

    assert all(map(str.isprintable, [card.licence or "", *card.languages, *card.base_models]))


def test_the_table_of_families_is_whole() -> None:
    table = read_own(TABLE)
    models = [model for family in table.values() for model in family["models"]]

    assert len(models) == len({model.rpartition("/")[2].lower() for model in models})
    for name, family in table.items():
        assert set(family) == {"prompts", "models"}
        assert set(family["prompts"]) <= set(get_args(InputType))
        for model in family["models"]:
            found = find_family(model)
            assert found is not None
            assert found.name == name


def test_the_table_agrees_with_the_catalog(tmp_path: Path) -> None:
    """An entry that comes with emberd has the prompts that `add` would propose for its sources."""
    from emberd.config.load import built_in_catalog

    known = [(spec, find_family(hub_id)) for spec in built_in_catalog() for hub_id in spec.hub_ids]
    compared = [(spec, family) for spec, family in known if family]

    assert len(compared) > 10
    for spec, family in compared:
        assert dict(spec.prompts) == dict(family.prompts)
