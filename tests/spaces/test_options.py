"""Limits and options of a space: which differences make another one, and in what words."""

from dataclasses import asdict, replace

import pytest

from emberd.spaces.options import SpaceOptions

FULL = SpaceOptions(
    max_tokens=512, normalize=True, prompts={"query": "q: "}, include_prompt=True,
    lower_case=False, normalizer="", matryoshka_norm=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"max_tokens": 128}, "texts are cut after 512 tokens (before) and 128 tokens (now)"),
        (
            {"normalize": False},
            "vectors are scaled to length 1 (before) and left as the model gives them (now)",
        ),
        (
            {"matryoshka_norm": True},
            "smaller sizes are cut from vectors as they are (before) and vectors after a layer norm"
            " (now)",
        ),
        ({"prompts": {}}, "the query prompt is 'q: ' (before) and none (now)"),
        ({"prompts": {"query": "q:"}}, "the query prompt is 'q: ' (before) and 'q:' (now)"),
        (
            {"prompts": {"query": "q: ", "document": "d: "}},
            "the document prompt is none (before) and 'd: ' (now)",
        ),
        (
            {"include_prompt": False},
            "prompts are pooled with their texts (before) and left out of the pooling (now)",
        ),
        (
            {"lower_case": True},
            "texts are left in their own case (before) and lower-cased first (now)",
        ),
        (
            {"lower_case": True, "normalizer": "{}"},
            "texts are left in their own case (before) and lower-cased first (now)",
        ),
        ({"normalizer": "{}"}, "texts are normalized by tokenizer.json (before) and {} (now)"),
    ],
    ids=str,
)
def test_each_option_makes_another_space_and_is_said(now: dict[str, object], said: str) -> None:
    assert FULL.differences(replace(FULL, **now)) == [said]  # type: ignore[arg-type]


def test_the_two_are_called_as_one_likes() -> None:
    (said,) = FULL.differences(replace(FULL, max_tokens=9), whose=("wide", "narrow"))

    assert said == "texts are cut after 512 tokens (wide) and 9 tokens (narrow)"


@pytest.mark.parametrize("option", sorted(asdict(FULL).keys() - {"normalizer"}))
def test_what_was_not_recorded_makes_no_other_space(option: str) -> None:
    other = SpaceOptions(
        max_tokens=1, normalize=False, prompts={"query": "x"}, include_prompt=False,
        lower_case=True, matryoshka_norm=True,
    )  # fmt: skip
    lacking = replace(FULL, **{option: None})

    assert len(lacking.differences(other)) == len(other.differences(lacking)) == 5
    assert FULL.differences(SpaceOptions()) == SpaceOptions().differences(FULL) == []


def test_empty_prompts_and_what_concerns_prompts_alone_make_none() -> None:
    bare = replace(FULL, prompts={})

    assert bare.differences(replace(bare, prompts={"query": "", "document": ""})) == []
    assert bare.differences(replace(bare, include_prompt=False)) == []
