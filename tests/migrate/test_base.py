"""A stamp reads back whichever version of emberd wrote it; what is none counts as none."""

import json
from dataclasses import asdict, replace

import pytest

from emberd.spaces.options import SpaceOptions
from emberd.stores.base import Stamp

STAMP = Stamp(
    model="minilm", fingerprint="0123456789abcdef", dimensions=384, probes="AAAA", migration="m",
    made_at="2026-11-27T12:00:00+00:00",
    options=SpaceOptions(max_tokens=512, normalize=True, prompts={"query": "q: "}),
)  # fmt: skip


def test_it_reads_back_equal() -> None:
    assert Stamp.from_json(STAMP.to_json()) == STAMP


def test_one_of_an_older_version_has_no_options() -> None:
    older = asdict(STAMP)
    del older["options"]

    assert Stamp.from_json(json.dumps(older)) == replace(STAMP, options=SpaceOptions())


def test_what_a_newer_version_added_is_passed_over() -> None:
    newer = asdict(STAMP)
    newer |= {"later": [1], "options": {**newer["options"], "later": {"a": 1}}}

    assert Stamp.from_json(json.dumps(newer)) == STAMP


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", "{}", "3", '"text"', "[" * 5000,
        json.dumps(asdict(STAMP) | {"probes": 5}),
        json.dumps(asdict(STAMP) | {"dimensions": "384"}),
        json.dumps(asdict(STAMP) | {"options": [1]}),
        json.dumps(asdict(STAMP) | {"options": {"max_tokens": "many"}}),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_none_counts_as_none(text: str) -> None:
    assert Stamp.from_json(text) is None
