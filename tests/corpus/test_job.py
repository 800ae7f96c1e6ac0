"""A folder that is filled: exactly once, whatever stops it, and never with anything else's rows.

What embeds here counts letters, so that every vector says of which text it is.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Timer
from typing import Unpack

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from emberd.corpus.job import Job, opened, run
from emberd.corpus.manifest import NAME
from emberd.errors import AlreadyRunningError, BadOptionError, StoreError, UnavailableError
from emberd.migrate.embedding import Embedded, Options, Target
from emberd.migrate.turns import IN_FLIGHT

TARGET = Target(model="letters", dimensions=2, fingerprint="f1", probes="")


class Letters:
    """Gives each text its number of letters and of the letter `a`; ends after so many batches."""

    at_once = IN_FLIGHT

    def __init__(self, batches: int = 1000) -> None:
        self.left = batches
        self.texts = 0

    def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
        """See `Embedder`; a text of more than 40 letters is cut."""
        answer: Future[Embedded] = Future()
        self.left -= 1
        if self.left < 0:
            answer.set_exception(UnavailableError("It went away.", hint="Come again."))
            return answer
        assert all(texts)
        self.texts += len(texts)
        vectors = np.array([[len(text), text.count("a")] for text in texts], np.float32)
        fingerprint = options["fingerprint"] or ""
        answer.set_result(Embedded(vectors, fingerprint, sum(len(text) > 40 for text in texts)))
        return answer

    def release(self, model: str) -> None:
        """See `Embedder`."""


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    """Two files of 1,000 rows, 20 of them without a text, with different columns."""
    texts = ["" if at % 50 == 0 else "a" * (at % 45) + "b" for at in range(1000)]
    table = {"id": range(1000), "body": texts, "even": [at % 2 == 0 for at in range(1000)]}
    parquet.write_table(pa.table(table), tmp_path / "a.parquet", row_group_size=130)
    rows = [{"id": 1000 + at, "body": texts[at] or None} for at in range(1000)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return [tmp_path / "a.parquet", tmp_path / "b.jsonl"]


def fill(
    out: Path,
    inputs: Sequence[Path],
    embedder: Letters,
    target: Target = TARGET,
    text: str = "body",
) -> Job:
    with opened(out, inputs, target, text=text, column="embedding", part_rows=300) as job:
        run(job, embedder, target, lambda _done, _total: None)
        return job


def check(out: Path) -> None:
    table = parquet.read_table(out)
    assert table["id"].to_pylist() == list(range(2000))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    about = json.loads(table.schema.metadata[b"emberd.stamp"])
    assert (about["model"], about["fingerprint"], about["dimensions"]) == ("letters", "f1", 2)
    for text, vector in zip(table["body"].to_pylist(), table["embedding"].to_pylist(), strict=True):
        assert vector == ([len(text), text.count("a")] if text else None)


def test_every_row_is_there_once_with_its_columns_and_its_vector(
    inputs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    job = fill(out, inputs, Letters())

    check(out)
    assert (job.counts.rows, job.counts.without_text) == (2000, 40)
    assert job.counts.cut == sum(at % 50 != 0 and at % 45 >= 40 for at in range(1000)) * 2
    names = [NAME, *(part.name for part in job.manifest.parts)]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    noted = json.loads((out / NAME).read_text())
    assert [row["rows"] for row in noted["parts"]] == [300, 300, 300, 100] * 2


def test_other_programs_read_the_folder(inputs: list[Path], tmp_path: Path) -> None:
    fill(tmp_path / "out", inputs, Letters())

    frame = pd.read_parquet(tmp_path / "out")

    assert list(frame.columns) == ["id", "body", "even", "embedding"]
    assert frame["embedding"][1].dtype == np.float32
    assert dataset.dataset(tmp_path / "out").count_rows() == 2000


def test_the_model_does_not_wait_for_a_part_to_be_written(
    inputs: list[Path], tmp_path: Path
) -> None:
    class Waiting(Letters):
        """Answers nothing before it has five batches, which are of three parts."""

        at_once = 5

        def __init__(self) -> None:
            super().__init__()
            self.held: list[tuple[Future[Embedded], Future[Embedded]]] = []
            self.given_up = Timer(20, self.give_up)

        def give_up(self) -> None:
            for promised, _ in self.held:
                promised.set_exception(UnavailableError("No fifth batch came."))

        def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
            answer = super().submit(texts, **options)
            if self.given_up.finished.is_set():
                return answer
            promised: Future[Embedded] = Future()
            self.held.append((promised, answer))
            if len(self.held) == 5:
                self.given_up.cancel()
                for each, known in self.held:
                    each.set_result(known.result())
            return promised

    waiting = Waiting()
    waiting.given_up.start()
    fill(tmp_path / "out", inputs, waiting)

    check(tmp_path / "out")


@pytest.mark.parametrize("batches", range(1, 12))
def test_what_was_stopped_goes_on_with_what_is_missing(
    inputs: list[Path], tmp_path: Path, batches: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UnavailableError):
        fill(out, inputs, Letters(batches))
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    (out / ".00000-a.parquet.0000.part").write_bytes(b"left by a run that was killed")

    again = Letters()
    job = fill(out, inputs, again)

    check(out)
    assert not [*out.glob(".*")]
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())
    missing = sum(part.piece.rows for part in job.manifest.parts if out / part.name not in there)
    assert missing * 0.9 < again.texts <= missing


@pytest.mark.parametrize("damage", ["cut", "gone", "of another space"])
def test_a_part_that_is_not_whole_is_written_again(
    inputs: list[Path], tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "out"
    job = fill(out, inputs, Letters())
    first, second = (out / part.name for part in job.manifest.parts[:2])
    if damage == "cut":
        first.write_bytes(first.read_bytes()[:-10])
    elif damage == "gone":
        first.unlink()
    else:
        first.write_bytes(second.read_bytes())
        table = parquet.read_table(first)
        parquet.write_table(table.replace_schema_metadata({}), first)

    fill(out, inputs, Letters())

    check(out)


def test_nothing_is_embedded_again_once_all_is_there(inputs: list[Path], tmp_path: Path) -> None:
    fill(tmp_path / "out", inputs, Letters())

    fill(tmp_path / "out", inputs, Letters(0))


OTHER = Target(model="letters", dimensions=2, fingerprint="f2", probes="")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("touched", "b.jsonl has changed since this was begun"),
        ("gone", "b.jsonl has changed since this was begun"),
        ("fewer", "was begun with other inputs: a.parquet, b.jsonl"),
        ("fingerprint", "was begun with fingerprint f1, and this would go on with f2"),
        ("text", "was begun with text body, and this would go on with id"),
        ("manifest", "cannot be read"),
        ("another file", "has files in it that are not of this command"),
        ("no manifest", "has files in it that are not of this command"),
    ],
)
def test_nothing_else_is_put_beside_the_parts(
    inputs: list[Path], tmp_path: Path, change: str, complaint: str
) -> None:
    out = tmp_path / "out"
    fill(out, inputs, Letters())
    before = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    if change == "touched":
        os.utime(inputs[1], ns=(0, 0))
    elif change == "gone":
        inputs[1].unlink()
    elif change == "manifest":
        (out / NAME).write_text("{")
    elif change == "another file":
        before["rows.emberd-1a2b3c4d.parquet"] = next(iter(before.values()))
        (out / "rows.emberd-1a2b3c4d.parquet").write_bytes(next(iter(before.values())))
    elif change == "no manifest":
        (out / NAME).unlink()

    with pytest.raises(BadOptionError) as caught:
        fill(
            out,
            inputs[:1] if change == "fewer" else inputs,
            Letters(),
            OTHER if change == "fingerprint" else TARGET,
            text="id" if change == "text" else "body",
        )

    assert complaint in caught.value.message
    assert caught.value.hint
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == before


def test_an_input_that_changes_while_it_is_read_spoils_no_part(
    inputs: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"

    class Touching(Letters):
        def submit(self, texts: Sequence[str], **options: Unpack[Options]) -> "Future[Embedded]":
            if self.texts > 550:  # the first part is written by then
                os.utime(inputs[0], ns=(0, 0))
            return super().submit(texts, **options)

    with pytest.raises(BadOptionError, match="has changed since"):
        fill(out, inputs, Touching())

    assert sum(parquet.read_metadata(path).num_rows for path in out.glob("*.parquet")) == 300


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("c.jsonl", '{"id": "x", "body": "a"}', "c.jsonl has columns that do not go with those"),
        ("c.jsonl", '{"embedding": 1, "body": "a"}', "There is a column 'embedding' already"),
        ("c.jsonl", '{"id": 1, "body": "a"}\n{"id": 2, "bo', "c.jsonl, line 2: it is not JSON"),
        ("../b.jsonl", None, "b.jsonl is named twice"),
    ],
)
def test_a_bad_file_is_found_before_anything_is_embedded(
    inputs: list[Path], tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    (tmp_path / "more").mkdir()
    bad = tmp_path / "more" / name
    if content is not None:
        bad.write_text(content)

    with pytest.raises(BadOptionError) as caught:
        fill(tmp_path / "out", [*inputs, bad], Letters(0))

    assert complaint in caught.value.message
    assert not [*(tmp_path / "out").iterdir()]


def test_two_commands_do_not_fill_one_folder(inputs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        opened(out, inputs, TARGET, text="body", column="embedding"),
        pytest.raises(AlreadyRunningError),
    ):
        fill(out, inputs, Letters())


def test_a_folder_whose_lock_cannot_be_made_is_named(inputs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "out" / ".lock").mkdir(parents=True)

    with pytest.raises(StoreError, match="out cannot be written: Is a directory"):
        fill(tmp_path / "out", inputs, Letters())
