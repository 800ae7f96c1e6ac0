"""What an output folder holds, so that a stopped run goes on: `_emberd.json`.

It is written once, before anything is embedded, and says all that decides which rows with which
vectors are in which part. A part that is there under its name is whole. Programs that read the
folder as one data set pass over names that begin with `_` or a dot.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from emberd.corpus.arrow import conformed, united, with_vectors
from emberd.corpus.inputs import Piece, Survey, changed, kind_of, survey
from emberd.corpus.lines import Mark
from emberd.errors import BadOptionError, StoreError
from emberd.replacing import replace_file
from emberd.stores.base import Stamp

NAME = "_emberd.json"
MALFORMED = (ValueError, KeyError, TypeError, IndexError)  # what reading another file raises
VERSION = 1


@dataclass(frozen=True, slots=True)
class Asked:
    """Which column has the texts, which one gets the vectors, and what the texts are to a model."""

    text: str
    column: str
    input_type: str | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """A file as it was when it was looked through."""

    path: str
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> "Input":
        """Return a file as it is now; raises `OSError`."""
        seen = path.stat()
        return cls(str(path), seen.st_size, seen.st_mtime_ns)

    def require_unchanged(self) -> None:
        """Raise `BadOptionError` if the file is not what it was."""
        try:
            now = Input.of(Path(self.path))
        except OSError:
            now = None
        if now != self:
            raise changed(Path(self.path))


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the output: `name`, and which rows of which input are in it."""

    name: str
    input: Input
    piece: Piece


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is in the folder when it is complete. `schema` has the inputs' columns, united.

    `stamp` says whose vectors they are; it is in every part, as in any store that was migrated.
    """

    asked: Asked
    stamp: Stamp
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """How many rows all inputs have."""
        return sum(part.piece.rows for part in self.parts)

    @property
    def output_schema(self) -> pa.Schema:
        """The columns of a part: those of the inputs, and the vectors."""
        return with_vectors(self.schema, self.asked.column, self.stamp)

    @property
    def decides(self) -> dict[str, object]:
        """What decides which vectors are in the parts, in words that people know."""
        stamp = self.stamp
        return {
            "model": stamp.model, "fingerprint": stamp.fingerprint,
            "dimensions": stamp.dimensions, **asdict(self.asked),
        }  # fmt: skip

    def to_json(self) -> str:
        """Return it as JSON."""
        places = {each.path: place for place, each in enumerate(self.inputs)}
        parts = [
            {
                "name": part.name,
                "input": places[part.input.path],
                "first": part.piece.first,
                "rows": part.piece.rows,
                "offset": part.piece.mark.offset,
                "line": part.piece.mark.line,
            }
            for part in self.parts
        ]
        about = {
            "version": VERSION,
            **self.decides,
            "rows": self.rows,
            "inputs": [asdict(each) for each in self.inputs],
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "stamp": json.loads(self.stamp.to_json()),
            "parts": parts,
        }
        return json.dumps(about, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what `to_json` wrote; raises one of `MALFORMED` if it is something else."""
        about: dict[str, Any] = json.loads(text)
        if about["version"] != VERSION:
            raise ValueError("another version")
        inputs = tuple(Input(**each) for each in about["inputs"])
        parts = tuple(
            Part(
                name=row["name"],
                input=inputs[row["input"]],
                piece=Piece(row["first"], row["rows"], Mark(row["offset"], row["line"])),
            )
            for row in about["parts"]
        )
        asked = Asked(about["text"], about["column"], about["input_type"])
        stamp = Stamp.from_json(json.dumps(about["stamp"]))
        if stamp is None:
            raise ValueError("no stamp")
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(about["schema"])))
        return cls(asked, stamp, inputs, parts, schema)


def begin(
    folder: Path, paths: Sequence[Path], asked: Asked, stamp: Stamp, part_rows: int
) -> Manifest:
    """Return the manifest of a folder; written now, or before by a run that was stopped.

    Args:
        folder: where the parts go; it must exist.
        paths: the inputs, in the order of the output.
        asked: which columns.
        stamp: whose vectors these will be.
        part_rows: how many rows a part has; a folder that was begun keeps to its own number.

    Raises:
        BadOptionError: an input cannot be used or has changed, or the folder is of another job.
        StoreError: the folder cannot be written.
    """
    paths = [path.resolve() for path in paths]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise BadOptionError(
            f"{twice} is named twice, so its rows would be there twice.", hint="Name it once."
        )
    there = _read(folder)
    if there:
        _require_same(there, folder, paths, Manifest(asked, stamp, (), (), there.schema))
        return there
    made = _survey(paths, asked, stamp, part_rows)
    try:
        replace_file(folder / NAME, made.to_json().encode(), mode=0o666)
    except OSError as error:
        raise unwritable(folder, error) from None
    return made


def unwritable(folder: Path, error: Exception) -> StoreError:
    """Return the error that nothing can be written into a folder."""
    return StoreError(
        f"{folder} cannot be written: {getattr(error, 'strerror', None) or error}.",
        hint="Free some space or choose another place; then run the same command again.",
    )


def _read(folder: Path) -> Manifest | None:
    """Return what was begun; refuses a folder with anything else in it, such as a moved store."""
    there = None
    try:
        there = Manifest.from_json((folder / NAME).read_text())
    except FileNotFoundError:
        pass
    except (OSError, *MALFORMED):
        raise BadOptionError(f"{folder / NAME} cannot be read.", hint=_ANOTHER) from None
    known = {NAME, *(part.name for part in there.parts)} if there else set()
    if {path.name for path in folder.iterdir() if not path.name.startswith(".")} - known:
        raise BadOptionError(
            f"{folder} has files in it that are not of this command.", hint=_ANOTHER
        )
    return there


_ANOTHER = "Choose another folder, or delete this one to begin again."


def _require_same(there: Manifest, folder: Path, paths: Sequence[Path], wanted: Manifest) -> None:
    """Refuse to go on with anything that would give other rows or other vectors."""
    before, now = there.decides, wanted.decides
    for key in before:
        if before[key] != now[key]:
            raise BadOptionError(
                f"{folder} was begun with {key.replace('_', ' ')} {before[key] or 'none'}, and this"
                f" would go on with {now[key] or 'none'}.",
                hint=_ANOTHER,
            )
    if [each.path for each in there.inputs] != [str(path) for path in paths]:
        names = ", ".join(Path(each.path).name for each in there.inputs)
        raise BadOptionError(f"{folder} was begun with other inputs: {names}.", hint=_ANOTHER)
    for each in there.inputs:
        each.require_unchanged()


def _survey(paths: Sequence[Path], asked: Asked, stamp: Stamp, part_rows: int) -> Manifest:
    inputs: list[Input] = []
    parts: list[Part] = []
    found: list[Survey] = []
    for number, path in enumerate(paths):
        seen = _seen(path)
        looked = survey(path, asked.text, part_rows)
        seen.require_unchanged()
        inputs.append(seen)
        found.append(looked)
        stem = re.sub(r"[^\w.-]", "_", path.stem).lstrip("._")[:100]
        parts += [
            Part(f"{number:05}-{stem}-{piece.first:012}.parquet", seen, piece)
            for piece in looked.pieces
        ]
    schema = _one_schema(paths, found, asked.column)
    return Manifest(asked, stamp, tuple(inputs), tuple(parts), schema)


def _seen(path: Path) -> Input:
    kind_of(path)
    try:
        return Input.of(path)
    except OSError as error:
        raise BadOptionError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from None


def _one_schema(paths: Sequence[Path], found: Sequence[Survey], column: str) -> pa.Schema:
    """Return the columns of all files together, or say which file does not go with the others."""
    schema = found[0].schema
    for path, each in zip(paths, found, strict=True):
        try:
            schema = united([schema, each.schema])
            conformed(pa.RecordBatch.from_pylist([], each.schema), schema)
        except pa.ArrowException as error:
            said = str(error).partition("\n")[0]
            raise BadOptionError(
                f"{path} has columns that do not go with those of the files before: {said}.",
                hint="Embed it into a folder of its own.",
            ) from None
    if column in schema.names:
        raise BadOptionError(
            f"There is a column {column!r} already.",
            hint="Say with --column how the column of vectors is to be called.",
        )
    return schema
