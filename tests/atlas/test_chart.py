"""Real stores read for a map: what is held, where it is, who made it, and as Parquet."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from emberd.atlas import holding
from emberd.atlas.chart import Chart
from emberd.atlas.holding import hold
from emberd.atlas.origins import find_origins
from emberd.config.load import Config
from emberd.errors import SourceError
from emberd.migrate.known import find
from emberd.vectors import Matrix
from tests.atlas.maps import HOSTILE, OF_NEW, ROWS, texts
from tests.serving import clean_environ, run_emberd

Made = tuple[Path, dict[str, Matrix]]


def test_a_store_is_held_as_it_is(config: Config, made: Made) -> None:
    told: list[tuple[int, int]] = []
    held = hold(find(config, "notes").store, lambda *done: told.append(done))

    assert held.keys == list(range(1, ROWS + 1))
    assert held.excerpts == [text[: holding.EXCERPT] for text in texts()]
    assert np.allclose(held.vectors, made[1]["old"], atol=1e-6)
    assert (held.unusable, held.is_sample) == (0, False)
    assert told == [(0, ROWS), (ROWS, ROWS)]
    assert len(held.whole) == ROWS // (ROWS // holding.CHECKED)
    assert held.whole[2].text == HOSTILE[2]


def test_a_large_store_is_sampled_evenly(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST_ROWS", 100)
    held = hold(find(config, "notes").store)

    assert (len(held.keys), held.is_sample) == (100, True)
    assert (held.keys[0], held.keys[-1]) == (1, ROWS)
    steps = np.diff(np.array(held.keys, int))
    assert steps.max() - steps.min() <= 1


def test_a_vector_that_cannot_be_placed_is_counted(config: Config) -> None:
    held = hold(find(config, "odd").store)

    assert (len(held.keys), held.unusable, held.is_sample) == (18, 2, False)
    assert {4, 6}.isdisjoint(held.keys)


def test_an_empty_store_is_an_empty_map(config: Config) -> None:
    chart = Chart(hold(find(config, "empty").store))

    assert chart.points() == b""
    assert chart.components(10)[1:] == (0, 0)
    assert chart.nearest([1.0] * 64, 5) == []


@pytest.mark.parametrize("store", ["notes", "int8", "bits"])
def test_the_nearest_of_a_row_is_that_row(config: Config, store: str) -> None:
    ref = find(config, store)
    chart = Chart(hold(ref.store))
    row = next(row for row in ref.store.rows() if row.key == 700)
    kind = {"notes": "<f4", "int8": "i1", "bits": "u1"}[store]
    vector = np.frombuffer(row.vector, kind).tolist()

    nearest = chart.nearest(vector, 10)

    assert nearest[0] == {"row": 699, "key": 700, "text": texts()[699], "cosine": 1.0}
    cosines = [each["cosine"] for each in nearest]
    assert cosines == sorted(cosines, reverse=True)
    assert len(cosines) == 10


def test_two_models_are_told_apart_in_all_rows(config: Config) -> None:
    ref = find(config, "mixed")
    chart = Chart(hold(ref.store))
    told: list[str] = []

    chart.origins = find_origins(config, ref, chart.held, lambda model, *_: told.append(model))

    groups = {group.model: group for group in chart.origins.groups}
    assert told == ["old", "new"]
    assert {name: group.points for name, group in groups.items()} == {
        "old": ROWS - OF_NEW, "new": OF_NEW,
    }  # fmt: skip
    assert sum(group.checked for group in groups.values()) == len(chart.held.whole)
    assert chart.origins.agreement == 1.0
    of_new = [group.model for group in chart.origins.groups].index("new") + 1
    assert set(np.flatnonzero(chart.origins.of_rows == of_new)) == {*range(ROWS - OF_NEW, ROWS)}
    left = chart.places[: ROWS - OF_NEW, 0]  # two clouds, which anybody sees
    right = chart.places[ROWS - OF_NEW :, 0]
    assert left.max() < right.min() or right.max() < left.min()


def test_rows_that_do_not_lie_apart_are_left_unknown(config: Config) -> None:
    """As of one model in two precisions: its near rows may be of either."""
    ref = find(config, "notes")
    held = hold(ref.store)
    for place, row in [*held.whole.items()][::2]:  # every other checked row gets no model's text
        held.whole[place] = row._replace(text=f"another text {place}")

    origins = find_origins(config, ref, held, lambda *_: None)

    assert {group.model for group in origins.groups} == {"old", None}
    assert origins.agreement is not None
    assert origins.agreement < 0.99
    assert int((origins.of_rows > 0).sum()) == len(held.whole)


def test_a_size_that_no_model_has_is_said(config: Config) -> None:
    ref = find(config, "other")

    with pytest.raises(SourceError, match="7 dimensions"):
        find_origins(config, ref, hold(ref.store), lambda *_: None)


def test_the_command_writes_parquet(made: Made, tmp_path: Path) -> None:
    home, vectors = made
    file = tmp_path / "notes.parquet"

    run = run_emberd("map", "mixed", "--out", str(file), "--check", "--json", home=home)

    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    table = parquet.read_table(file)
    about = json.loads(table.schema.metadata[b"emberd"])
    assert said == {"file": str(file), "written": ROWS, **about}
    assert table.column_names == ["key", "text", "vector", "x", "y", "model"]
    assert table["key"].to_pylist() == list(range(1, ROWS + 1))
    assert table["text"].to_pylist() == texts()
    assert table["model"].to_pylist() == ["old"] * (ROWS - OF_NEW) + ["new"] * OF_NEW
    assert str(table.schema.field("vector").type).startswith("fixed_size_list<")
    written = np.array(table["vector"].to_pylist(), np.float32)
    assert np.allclose(written[: ROWS - OF_NEW], vectors["old"][: ROWS - OF_NEW], atol=1e-6)
    assert np.ptp(table["x"].to_numpy()) > 0.1


def test_without_pyarrow_the_command_says_what_to_install(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "none.parquet"
    code = "import sys; sys.modules['pyarrow'] = None; from emberd.cli.main import main; main()"

    run = subprocess.run(
        [sys.executable, "-c", code, "map", "notes", "--out", str(file)],
        env=clean_environ(made[0]),
        capture_output=True,
    )

    assert run.returncode == 1
    assert b"emberd[parquet]" in run.stderr
    assert not file.exists()
