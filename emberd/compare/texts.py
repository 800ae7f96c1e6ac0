"""The texts that models are compared on: lines of a file or rows of a store, all or a sample."""

import hashlib
import heapq
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emberd.errors import BadOptionError
from emberd.migrate.store_ref import StoreRef
from emberd.vectors import Matrix, finite_rows

JSON_LINES = (".jsonl", ".ndjson")
SEED = 0


@dataclass(frozen=True, slots=True)
class Text:
    """A text and what names it; `vector` is what a store has for it, little-endian float32."""

    id: str
    text: str
    vector: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Texts in random order, which is the same in every run.

    `total` is how many there were to choose from, `equal` how many of these were left out because
    an equal one came before. `vectors` are the store's, `(N, D)` float32; None if any is not
    usable, or if there is no store.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    total: int
    equal: int
    vectors: Matrix | None

    def __len__(self) -> int:
        return len(self.texts)


def choose(found: Iterable[Text], most: int, *, once: bool = False) -> Texts:
    """Return at most so many texts, each with the same chance, in memory for no more than these.

    With `once`, a text that is equal to an earlier one is left out.
    """
    # Only `random` gives the same numbers in every version of Python.
    chance = random.Random(SEED).random  # noqa: S311 - no secret
    seen: set[bytes] = set()
    heap: list[tuple[float, int, Text]] = []
    total = 0
    for each in found:
        total += 1
        if once:
            digest = hashlib.blake2b(each.text.encode(), digest_size=16).digest()
            if digest in seen:
                continue
            seen.add(digest)
        drawn = (chance(), total, each)
        if len(heap) < most:
            heapq.heappush(heap, drawn)
        elif drawn > heap[0]:
            heapq.heapreplace(heap, drawn)
    kept = [text for _, _, text in sorted(heap)]
    return Texts(
        ids=[each.id for each in kept],
        texts=[each.text for each in kept],
        total=total,
        equal=total - len(seen) if once else 0,
        vectors=_vectors(kept),
    )


def _vectors(kept: Sequence[Text]) -> Matrix | None:
    sizes = {len(each.vector) for each in kept}
    if len(sizes) != 1 or not all(sizes) or any(size % 4 for size in sizes):
        return None
    vectors = np.frombuffer(b"".join(each.vector for each in kept), "<f4").reshape(len(kept), -1)
    return vectors if finite_rows(vectors).all() else None


def of_store(ref: StoreRef) -> Iterator[Text]:
    """Yield the rows of a store that have a text; raises `StoreError`."""
    for row in ref.store.rows():
        if row.text:
            yield Text(str(row.key), row.text, row.vector)


def of_file(path: Path) -> Iterator[Text]:
    """Yield the texts of a file, without those that are blank.

    A file whose name ends with `.jsonl` or `.ndjson` has a text, or an object with a `text`, on
    each line; its `_id` or `id` names the text. In any other file each line is a text. Without an
    id, the number of the line names it, from 1.

    Raises:
        BadOptionError: the file cannot be read, or a line of it is not as it should be.
    """
    as_json = path.suffix.lower() in JSON_LINES
    for number, line in lines_of(path):
        found = _from_json(path, number, line) if as_json else Text(str(number), line)
        if found.text.strip():
            yield found


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a UTF-8 file that are not blank, with their numbers, from 1.

    Raises:
        BadOptionError: it cannot be read, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.decode().rstrip("\r\n")
                if text.strip():
                    yield number, text
    except OSError as error:
        raise BadOptionError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BadOptionError(f"{path} is not UTF-8.", hint="Convert it with iconv.") from None


def _from_json(path: Path, number: int, line: str) -> Text:
    try:
        row = json.loads(line)
        text = row["text"] if isinstance(row, dict) else row
        name = row.get("_id", row.get("id", number)) if isinstance(row, dict) else number
        text.encode()  # half a character cannot be
    except (ValueError, LookupError, AttributeError, RecursionError):
        raise BadOptionError(
            f"Line {number} of {path} has no text.",
            hint='Write "a text" or {"text": "a text"}, one per line, or call the file .txt.',
        ) from None
    return Text(str(name), text)
