"""docs/architectures.md has every architecture, and no cosine in it is too low."""

import json
import re
from pathlib import Path

import pytest

from emberd.backends.architectures.native import NATIVE
from tests.backends import architectures_table as table
from tests.backends import nearness
from tests.backends.nearness import BACKENDS, BITS

SLOW = pytest.mark.slow
GOAL = 0.9999


def test_every_architecture_has_a_row() -> None:
    rows = table.committed()

    assert set(rows) == set(table.architectures()), "run scripts/architectures"
    assert set(rows) >= NATIVE
    assert {len(cells) + 1 for cells in rows.values()} == {len(table.HEADER)}


def test_every_architecture_of_our_own_is_measured_on_both_backends_in_each_precision() -> None:
    cells = len(BACKENDS) * (1 + len(BITS))
    for name, row in table.committed().items():
        if name in NATIVE:
            assert all(re.fullmatch(r"[01]\.\d{6}", cell) for cell in row[:cells]), name


@pytest.mark.parametrize("name", table.architectures())
def test_no_cosine_is_below_the_goal(name: str) -> None:
    cells = " ".join(table.committed()[name])

    found = [float(number) for number in re.findall(r"\d\.\d+", cells)]
    assert min(found) >= GOAL


def test_the_columns_of_real_sizes_say_what_was_found() -> None:
    assert set(table.real_sizes()) <= set(table.architectures())
    for name, row in table.committed().items():
        assert row[-len(BACKENDS) :] == table.at_real_sizes(name), "run scripts/architectures"


@pytest.mark.parametrize("name", ["model2vec", pytest.param("distilbert", marks=SLOW)])
def test_a_row_can_be_measured_again(name: str, tmp_path: Path) -> None:
    found = list(table.measured(name, tmp_path))

    said = table.committed()[name][: len(found)]
    assert [float(cell) for cell in found] == pytest.approx(
        [float(cell) for cell in said], abs=1e-5
    )


def test_other_weights_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nearness.BITS, "4bit", 2)

    assert nearness.lowest_to_dequantized("mlx", "distilbert", "4bit", tmp_path) < GOAL


def test_rows_that_were_not_measured_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(table.PAGE.read_text())
    monkeypatch.setattr(table, "PAGE", page)
    before, rest = table.committed(), page.read_text().partition(table.END)[2]
    monkeypatch.setattr(table, "measured", lambda *_: ["0.500000"] * 6)

    table.main(["t5"])

    after = table.committed()
    assert after.pop("t5")[:6] == ["0.500000"] * 6
    assert before.pop("t5")[0] != "0.500000"
    assert after == before
    assert page.read_text().endswith(rest)


def test_what_was_found_at_real_sizes_is_written_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, found = tmp_path / "page.md", tmp_path / "real_sizes.json"
    page.write_text(table.PAGE.read_text())
    found.write_text(json.dumps({"t5": {"mlx": {"lowest": 0.99999912, "lengths": [1, 2048]}}}))
    monkeypatch.setattr(table, "PAGE", page)
    monkeypatch.setattr(table, "REAL_SIZES", found)
    before = table.committed()

    table.main(["--real-sizes"])

    after = table.committed()
    assert after["t5"][6:] == ["not measured", "0.999999 up to 2,048 tokens"]
    assert {name: cells[:6] for name, cells in after.items()} == {
        name: cells[:6] for name, cells in before.items()
    }
