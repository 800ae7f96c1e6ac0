"""Texts from files, and samples of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from emberd.compare import texts
from emberd.compare.texts import Text, choose, of_file
from emberd.errors import BadOptionError

MANY = [Text(str(number), f"text {number}") for number in range(1000)]


def test_a_sample_is_the_same_in_every_run_and_of_all_parts() -> None:
    sample = choose(MANY, 100)

    assert choose(iter(MANY), 100) == sample
    assert (len(sample), sample.total, sample.equal) == (100, 1000, 0)
    places = [int(name) for name in sample.ids]
    assert len({*places}) == 100
    assert places != sorted(places)
    for start in range(0, 1000, 250):
        assert 10 <= sum(start <= place < start + 250 for place in places) <= 45


def test_each_text_has_the_same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.zeros(40)
    for seed in range(1000):
        monkeypatch.setattr(texts, "SEED", seed)
        for name in choose(MANY[:40], 10).ids:
            drawn[int(name)] += 1

    assert drawn.sum() == 1000 * 10
    assert (drawn.min() > 180, drawn.max() < 320) == (True, True)  # of 250; sigma is 14


def test_a_sample_of_more_than_there_is_has_everything() -> None:
    sample = choose(MANY, 5000)

    assert sorted(sample.ids, key=int) == [each.id for each in MANY]
    assert sample.texts == [f"text {name}" for name in sample.ids]


def test_equal_texts_count_once_where_that_is_asked_for() -> None:
    some = [*MANY[:5], Text("again", "text 3"), Text("other", "text 3")]

    assert (choose(some, 10, once=True).equal, len(choose(some, 10, once=True))) == (2, 5)
    assert "again" not in choose(some, 10, once=True).ids
    assert (choose(some, 10).equal, len(choose(some, 10))) == (0, 7)


@pytest.mark.parametrize(
    "other",
    [b"", np.ones(3, "<f4").tobytes(), np.zeros(4, "<f4").tobytes(),
     np.full(4, np.nan, "<f4").tobytes(), b"12345"],
)  # fmt: skip
def test_vectors_of_a_store_are_there_only_if_all_can_be_used(other: bytes) -> None:
    good = np.arange(1, 9, dtype="<f4").reshape(2, 4)
    rows = [Text("a", "a", good[0].tobytes()), Text("b", "b", good[1].tobytes())]

    sample = choose(rows, 9)
    assert sample.vectors is not None
    assert np.array_equal(sample.vectors, good[["ab".index(name) for name in sample.ids]])
    assert choose([*rows, Text("c", "c", other)], 9).vectors is None


def test_each_line_is_a_text_and_blank_ones_are_not(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes('first\r\n\n  \n{"text": "third"}\nÄrger'.encode())

    assert [*of_file(file)] == [
        Text("1", "first"), Text("4", '{"text": "third"}'), Text("5", "Ärger")
    ]  # fmt: skip


def test_json_lines_have_ids(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    rows = [{"_id": "d1", "title": "t", "text": "one"}, {"id": 7, "text": "two"},
            {"text": "three"}, "four", {"text": "  "}]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))

    assert [*of_file(file)] == [
        Text("d1", "one"), Text("7", "two"), Text("3", "three"), Text("4", "four")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["nothing", "[1]", "{}", '{"text": 5}', '{"text": null}', "7", '"\\ud800"', "[" * 9999]
)
def test_a_line_without_a_text_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "lines.ndjson"
    file.write_text(f'"good"\n{line}\n')

    with pytest.raises(BadOptionError, match=r"Line 2 of .*lines\.ndjson has no text"):
        [*of_file(file)]


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")

    for name, words in (("gone", "No such file"), ("", "Is a directory"), ("latin", "UTF-8")):
        with pytest.raises(BadOptionError, match=words):
            [*of_file(tmp_path / name)]
