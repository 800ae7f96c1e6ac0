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
from typing import TYPE_CHECKING, Any

from emberd.corpus.arrow import conformed, united, with_vectors
from emberd.corpus.inputs import Piece, Survey, changed, kind_of, survey
from emberd.corpus.lines import Mark
from emberd.errors import BadOptionError, StoreError
from emberd.replacing import replace_file

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "_emberd.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Space:
    """Whose vectors they are, and of which column's texts; `column` is where they go."""

    model: str
    fingerprint: str
    dimensions: int
    input_type: str | None
    text: str
    column: str


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
    """What is in the folder when it is complete. `schema` has the inputs' columns, united."""

    space: Space
    inputs: tuple[Input, ...]
    parts: tuple[Part, ...]
    schema: "pa.Schema"

    @property
    def rows(self) -> int:
        """How many rows all inputs have."""
        return sum(part.piece.rows for part in self.parts)

    @property
    def output_schema(self) -> "pa.Schema":
        """The columns of a part: those of the inputs, and the vectors."""
        return with_vectors(self.schema, self.space.column, asdict(self.space))

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
            **asdict(self.space),
            "rows": self.rows,
            "inputs": [asdict(each) for each in self.inputs],
            "schema": base64.b64encode(self.schema.serialize()).decode(),
            "parts": parts,
        }
        return json.dumps(about, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Read what `to_json` wrote; raises `ValueError` or `KeyError` if it is something else."""
        import pyarrow as pa

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
        space = Space(**{key: about[key] for key in Space.__slots__})
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(about["schema"])))
        return cls(space, inputs, parts, schema)


def begin(folder: Path, paths: Sequence[Path], space: Space, part_rows: int) -> Manifest:
    """Return the manifest of a folder; written now, or before by a run that was stopped.

    Args:
        folder: where the parts go; it must exist.
        paths: the inputs, in the order of the output.
        space: whose vectors these will be.
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
        _require_same(there, folder, paths, space)
        return there
    made = _survey(paths, space, part_rows)
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
    begin_again = "Choose another folder, or delete this one to begin again."
    try:
        return Manifest.from_json((folder / NAME).read_text())
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        raise BadOptionError(f"{folder / NAME} cannot be read.", hint=begin_again) from None
    if any(not each.name.startswith(".") for each in folder.iterdir()):
        raise BadOptionError(
            f"{folder} has files in it that are not of this command.", hint="Choose another folder."
        )
    return None


def _require_same(there: Manifest, folder: Path, paths: Sequence[Path], space: Space) -> None:
    """Refuse to go on with anything that would give other rows or other vectors."""
    hint = "Choose another folder, or delete this one to begin again."
    before, now = asdict(there.space), asdict(space)
    for key in before:
        if before[key] != now[key]:
            raise BadOptionError(
                f"{folder} was begun with {key.replace('_', ' ')} {before[key] or 'none'}, and this"
                f" would go on with {now[key] or 'none'}.",
                hint=hint,
            )
    if [each.path for each in there.inputs] != [str(path) for path in paths]:
        names = ", ".join(Path(each.path).name for each in there.inputs)
        raise BadOptionError(f"{folder} was begun with other inputs: {names}.", hint=hint)
    for each in there.inputs:
        each.require_unchanged()


def _survey(paths: Sequence[Path], space: Space, part_rows: int) -> Manifest:
    inputs: list[Input] = []
    parts: list[Part] = []
    found: list[Survey] = []
    for number, path in enumerate(paths):
        seen = _seen(path)
        looked = survey(path, space.text, part_rows)
        seen.require_unchanged()
        inputs.append(seen)
        found.append(looked)
        stem = re.sub(r"[^\w.-]", "_", path.stem).lstrip("._")[:100]
        parts += [
            Part(f"{number:05}-{stem}-{piece.first:012}.parquet", seen, piece)
            for piece in looked.pieces
        ]
    return Manifest(space, tuple(inputs), tuple(parts), _one_schema(paths, found, space.column))


def _seen(path: Path) -> Input:
    kind_of(path)
    try:
        return Input.of(path)
    except OSError as error:
        raise BadOptionError(
            f"{path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from None


def _one_schema(paths: Sequence[Path], found: Sequence[Survey], column: str) -> "pa.Schema":
    """Return the columns of all files together, or say which file does not go with the others."""
    import pyarrow as pa

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
