"""The sidecar beside a store: both are read in the order of their keys, once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from emberd.errors import StoreError
from emberd.migrate import sidecar
from emberd.migrate.sidecar import Sidecar
from emberd.stores.base import Key, Row


def rows(*keys: Key) -> list[Row]:
    return [Row(key, f"text {key}") for key in keys]


def filled(folder: Path, keys: Sequence[Key]) -> Sidecar:
    kept = Sidecar(folder / "staged.db")
    kept.put(rows(*keys), np.arange(4 * len(keys), dtype=np.float32).reshape(-1, 4))
    return kept


@pytest.mark.parametrize("read", [1, 2, 4096])
def test_what_is_in_one_of_them_alone_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int
) -> None:
    monkeypatch.setattr(sidecar, "READ", read)
    with filled(tmp_path, [1, 3, 10, "a", "ß", "z"]) as kept:
        store = rows(0, 1, 2, 10, "Z", "a", "😀")

        found = [
            (row and row.key, ours and ours.key) for row, ours in kept.beside(iter(store))
        ]  # fmt: skip

    assert found == [
        (0, None), (1, 1), (2, None), (None, 3), (10, 10), ("Z", None), ("a", "a"), (None, "z"),
        (None, "ß"), ("😀", None),
    ]  # fmt: skip


def test_a_changed_text_and_a_changed_vector_are_told_apart(tmp_path: Path) -> None:
    with filled(tmp_path, [1, 2, 3]) as kept:
        vectors = dict(kept.vectors())
        store = [Row(1, "text 1", vectors[1]), Row(2, "else", vectors[2]), Row(3, "text 3", b"x")]

        found = [(ours and ours.is_of(row), ours and ours.is_in(row))
                 for row, ours in kept.beside(store) if row]  # fmt: skip

    assert found == [(True, True), (False, False), (True, False)]


def test_rows_out_of_order_are_an_error(tmp_path: Path) -> None:
    with filled(tmp_path, [1]) as kept, pytest.raises(StoreError, match="not in the order"):
        list(kept.beside(rows(2, 1)))


def test_what_is_gone_is_forgotten(tmp_path: Path) -> None:
    with filled(tmp_path, [1, 2, 3]) as kept:
        kept.forget([1, 3, 7])

        assert [key for key, _ in kept.vectors()] == [2]
        assert len(kept) == 1
