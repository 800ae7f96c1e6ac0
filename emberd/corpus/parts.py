"""One part of the output: the rows of a piece, their vectors, and what was counted on the way.

It is written beside its place and renamed when it is whole, so a part that is there has each of
its rows once.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from emberd.corpus.arrow import texts_of, vectors_column
from emberd.corpus.inputs import read
from emberd.corpus.manifest import Manifest, Part, unwritable
from emberd.errors import BadOptionError
from emberd.migrate.embedding import BATCH, Embedded, Embedder, Target, submit_to
from emberd.migrate.turns import in_turn
from emberd.replacing import replacing
from emberd.stores.arrow import stamp_in

COUNTS = b"emberd.part"  # the key, in a part's own metadata, of what was counted


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the rows of a part, `without_text` have no vector, and the texts of `cut` were cut."""

    rows: int = 0
    without_text: int = 0
    cut: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows, self.without_text + other.without_text, self.cut + other.cut
        )


def counts_of(folder: Path, manifest: Manifest, part: Part) -> Counts | None:
    """Return what was counted in a part that is there, whole and in this space; else None."""
    try:
        with parquet.ParquetFile(folder / part.name) as file:
            found, schema = file.metadata, file.schema_arrow
        counts = Counts(**json.loads(found.metadata[COUNTS]))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    same = schema.equals(manifest.output_schema) and stamp_in(schema.metadata) == manifest.stamp
    return counts if same and found.num_rows == counts.rows == part.piece.rows else None


def write_parts(
    folder: Path,
    manifest: Manifest,
    parts: Sequence[Part],
    embedder: Embedder,
    target: Target,
    *,
    report: Callable[[int], None] = lambda _rows: None,
) -> Iterator[tuple[str, Counts]]:
    """Embed the rows of parts and write these; yields the name of each once it is there.

    The texts of the next part are with the model before this one is written, so that it never
    waits. `report` is called with rows as they are done.

    Raises:
        BadOptionError: the input cannot be read, or is not what it was.
        StoreError: the part cannot be written.
        EmberdError: the texts cannot be embedded.
    """
    answers = _embedded(manifest, parts, embedder, target)
    for part in parts:
        yield part.name, _write(folder, manifest, part, answers, report)


def _write(
    folder: Path,
    manifest: Manifest,
    part: Part,
    answers: Iterator[tuple[pa.RecordBatch, Embedded]],
    report: Callable[[int], None],
) -> Counts:
    schema = manifest.output_schema
    plain = [field.name for field in manifest.schema if not pa.types.is_nested(field.type)]
    counts = Counts()
    try:
        with (
            replacing(folder / part.name, mode=0o666) as file,
            parquet.ParquetWriter(file, schema, use_dictionary=plain) as writer,
        ):
            while counts.rows < part.piece.rows:
                batch, embedded = next(answers)  # no batch has rows of two parts
                has_text = [bool(text) for text in texts_of(batch.column(manifest.asked.text))]
                vectors = vectors_column(embedded.vectors, has_text)
                writer.write_batch(
                    pa.RecordBatch.from_arrays([*batch.columns, vectors], schema=schema)
                )
                counts += Counts(batch.num_rows, has_text.count(False), embedded.truncated)
                report(batch.num_rows)
            part.input.require_unchanged()
            writer.add_key_value_metadata({COUNTS: json.dumps(asdict(counts))})
    except (OSError, pa.ArrowException) as error:
        raise unwritable(folder, error) from None
    return counts


def _embedded(
    manifest: Manifest, parts: Sequence[Part], embedder: Embedder, target: Target
) -> Iterator[tuple[pa.RecordBatch, Embedded]]:
    """Yield the batches of all parts with their vectors, and an error where its rows would be."""
    column = manifest.asked.text

    def batches() -> Iterator[pa.RecordBatch | BadOptionError]:
        try:
            for part in parts:
                path = Path(part.input.path)
                yield from read(path, part.piece, column, manifest.schema, BATCH)
        except BadOptionError as error:  # what was read before is to be written all the same
            yield error

    def ask(batch: pa.RecordBatch | BadOptionError) -> "Future[Embedded]":
        done: Future[Embedded] = Future()
        if isinstance(batch, BadOptionError):
            done.set_exception(batch)
            return done
        texts = [text for text in texts_of(batch.column(column)) if text]
        if texts:
            return submit_to(embedder, texts, target)
        done.set_result(Embedded(np.empty((0, target.dimensions), np.float32), target.fingerprint))
        return done

    return in_turn(batches(), ask, lambda: embedder.at_once)
