"""The files beside an ONNX file that hold its weights, and whether all of them are there.

An ONNX file is a protobuf message (github.com/onnx/onnx, `onnx/onnx.proto3`). Its tensors are in
it, or name a range of a file in the same folder ("external data"). Only what leads to tensors is
read here, and no weights.
"""

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePath
from typing import Final

from emberd.errors import ModelLoadError
from emberd.files import is_file, size_of
from emberd.registry.spec import is_below

GET_AGAIN = "Pull the model again, or get the file from where the model came from."

_INSIDE: Final[Mapping[str, Mapping[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}  # fmt: skip
"""Messages by their kind -> numbers of fields with tensors somewhere in them, and their kinds."""

_DIMS, _TYPE, _NAME, _EXTERNAL = 1, 2, 8, 13  # fields of a tensor
_KEY, _VALUE = 1, 2  # fields of each entry that says where its data is
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""Bytes of a number, by type; others, of less than a byte, are not checked."""
_DEEPEST = 32  # graphs in nodes of graphs


@dataclass(frozen=True, slots=True)
class _Range:
    """Where a tensor's data is: in `file`, as the ONNX file spells it, up to byte `end`."""

    tensor: str
    file: str
    end: int


def data_files(path: Path) -> set[str]:
    """Return the names of the files with weights that an ONNX file names, relative to its folder.

    Names that lead elsewhere are left out, and a damaged file has none: loading will say so.
    """
    try:
        return {found.file for found in _ranges(path) if _is_plain(found.file)}
    except (ModelLoadError, OSError):
        return set()


def check_data(path: Path) -> None:
    """Check that an ONNX file is whole, and that all data which it names is in its folder.

    Raises:
        ModelLoadError: it is damaged, or a file beside it is missing, too short, or elsewhere.
    """
    try:
        ranges = _ranges(path)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}.", hint=GET_AGAIN) from error
    for found in ranges:
        if not _is_plain(found.file):
            raise ModelLoadError(
                f"{path} keeps {found.tensor} in {found.file[:200]!r}, which is not the name of a"
                " file of weights beside it.",
                hint="emberd reads nothing outside of a model's folder. Get the model from a source"
                " that you trust, or save it again with its data beside it.",
            )
        data = path.parent / found.file
        if not is_file(data):
            raise ModelLoadError(
                f"{data} is missing, in which {path} keeps {found.tensor}.", hint=GET_AGAIN
            )
        if size_of(data) < found.end:
            raise ModelLoadError(
                f"{data} has {size_of(data)} bytes, but {path} keeps {found.tensor} in it up to"
                f" byte {found.end}: it was not downloaded completely, or belongs to another file.",
                hint=GET_AGAIN,
            )


def _is_plain(name: str) -> bool:
    """Say whether it is in the folder itself, and of no kind that only describes a model."""
    in_folder = "/" not in name and is_below(name)
    return in_folder and PurePath(name).suffix not in (".json", ".txt", ".md")


def _ranges(path: Path) -> list[_Range]:
    """Return where all external data is. Raises ModelLoadError if the file is damaged, OSError."""
    if not path.stat().st_size:
        raise ModelLoadError(f"{path} is empty.", hint=GET_AGAIN)
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        return [found for tensor in _tensors("model", content) for found in _range(tensor)]
    except (IndexError, ValueError, RecursionError):
        raise ModelLoadError(
            f"{path} is damaged, or was not downloaded completely: it ends in the middle of"
            " something.",
            hint=GET_AGAIN,
        ) from None


def _tensors(kind: str, message: memoryview, depth: int = 0) -> Iterator[memoryview]:
    """Yield the tensors in a message of some kind, at any depth."""
    if kind == "tensor":
        yield message
        return
    if depth > 4 * _DEEPEST:
        raise RecursionError
    inside = _INSIDE[kind]
    for number, value in _fields(message):
        if number in inside and isinstance(value, memoryview):
            yield from _tensors(inside[number], value, depth + 1)


def _range(tensor: memoryview) -> Iterator[_Range]:
    """Yield the range of a tensor that is kept elsewhere."""
    where: dict[str, str] = {}
    name, kind, dims = "", 0, list[int]()
    for number, value in _fields(tensor):
        if number == _EXTERNAL and isinstance(value, memoryview):
            entry = {key: bytes(part) for key, part in _fields(value) if not isinstance(part, int)}
            where[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
        elif number == _NAME and isinstance(value, memoryview):
            name = bytes(value[:200]).decode(errors="replace")
        elif number == _TYPE and isinstance(value, int):
            kind = value
        elif number == _DIMS:
            dims += [value] if isinstance(value, int) else _integers(value)
    if where:
        least = prod(dims) * _BYTES.get(kind, 0)
        offset, length = int(where.get("offset", "0")), int(where.get("length", least))
        if min(offset, length) < 0:
            raise ValueError
        yield _Range(name, where.get("location", ""), offset + max(length, least))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field. Raises IndexError or ValueError for what is none.

    Encoding: protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                value, at = _varint(message, at)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, at = _varint(message, at)
            case 5:
                size = 4
            case _:
                raise ValueError
        if at + size > len(message):
            raise IndexError
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError


def _integers(packed: memoryview) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        found.append(value)
    return found
