"""The conformance check takes sound kinds, and names what an unsound one does not do."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.stores.base import Key, Row, Stamp
from emberd.stores.conformance import check_store
from emberd.stores.sqlite.cmem import CmemStore
from tests.migrate import stores

EXAMPLE = Path(__file__).parents[2] / "examples" / "store-plugin"
ROWS = 20
Example = tuple[Any, Path]


@pytest.fixture
def jsonl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """The module of the example, and a file of it."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    draw = np.random.default_rng(3)
    lines = [
        {"text": f"text {at}", "vector": draw.standard_normal(16).tolist()} for at in range(ROWS)
    ]
    path = tmp_path / "notes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return import_module("emberd_jsonl"), path


def test_the_example_meets_it(jsonl: Example, tmp_path: Path) -> None:
    module, path = jsonl

    check_store(lambda: module.JsonlStore(path), tmp_path / "scratch")


def test_our_own_kind_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emberd.stores.sqlite.database.PATIENCE_S", 0.2)
    vectors = np.random.default_rng(0).standard_normal((ROWS, 16)).astype(np.float32)
    stores.make_cmem(tmp_path / "cmem", [f"text {at}" for at in range(ROWS)], vectors)

    check_store(lambda: CmemStore(tmp_path / "cmem"), tmp_path / "scratch")


def test_what_is_not_met_is_named(jsonl: Example, tmp_path: Path) -> None:
    module, path = jsonl

    class Unordered(module.JsonlStore):  # type: ignore[misc, name-defined]
        def rows(self, *, after: Key | None = None, vectors: bool = True) -> Iterator[Row]:
            found: list[Row] = list(super().rows(after=after, vectors=vectors))
            return reversed(found)

    with pytest.raises(AssertionError) as caught:
        check_store(lambda: Unordered(path), tmp_path / "scratch")

    assert "jsonl does not meet: `rows` is in the order of the keys" in str(caught.value)


def test_a_store_that_shows_what_is_not_committed_is_named(jsonl: Example, tmp_path: Path) -> None:
    module, path = jsonl

    class Eager(module.JsonlStore):  # type: ignore[misc, name-defined]
        @contextmanager
        def replacing(self) -> Iterator[Any]:
            with super().replacing() as replacement:
                yield _Eager(replacement)

    with pytest.raises(AssertionError, match="is not seen before `commit`, and is gone without it"):
        check_store(lambda: Eager(path), tmp_path / "scratch")


class _Eager:
    """Commits as soon as it is filled."""

    def __init__(self, replacement: Any) -> None:  # noqa: ANN401 - of the example
        self._replacement = replacement

    def rows(self) -> Iterator[Row]:
        found: Iterator[Row] = self._replacement.rows()
        return found

    def fill(self, vectors: Iterable[tuple[Key, bytes]], *, dimensions: int, stamp: Stamp) -> None:
        self._replacement.fill(vectors, dimensions=dimensions, stamp=stamp)
        self._replacement.commit()

    def unmoved(self) -> Mapping[str, str]:
        return {}

    def digest(self) -> str:
        return ""

    def commit(self) -> None:
        pass


def test_a_search_that_finds_others_is_named(jsonl: Example, tmp_path: Path) -> None:
    module, path = jsonl

    class Blind(module.JsonlStore):  # type: ignore[misc, name-defined]
        def search(self, vector: bytes, count: int) -> Sequence[Key]:
            return super().search(vector, 99)[-count:]  # type: ignore[no-any-return]

    with pytest.raises(AssertionError, match="`search` finds a row by its own vector"):
        check_store(lambda: Blind(path), tmp_path / "scratch")
