"""What the probes decide: the same space, another one, or nothing to decide."""

from dataclasses import replace

import numpy as np
import pytest

from emberd.registry.lock import LockEntry
from emberd.vectors import Matrix
from emberd.worker.identity import PROBES, judge, lowest_cosine, pack, unpack

DRAW = np.random.default_rng(5)
VECTORS: Matrix = DRAW.standard_normal((len(PROBES), 16)).astype(np.float32)
NEARLY: Matrix = VECTORS + 0.01 * DRAW.standard_normal(VECTORS.shape).astype(np.float32)
OTHERS: Matrix = DRAW.standard_normal(VECTORS.shape).astype(np.float32)

NOW = LockEntry(
    source="hf:me/mine",
    folder="/hub/mine",
    fingerprint="one",
    fingerprints={"16": "one", "8": "one-cut"},
    backend="openvino",
    engine="openvino 1",
    compute="f32",
)
BEFORE = replace(NOW, probes=pack(VECTORS))


def never() -> Matrix:
    raise AssertionError("the probes ran")


def test_a_first_load_remembers_the_probes() -> None:
    entry = judge(NOW, None, lambda: VECTORS)

    assert (unpack(entry.probes, len(PROBES)) == VECTORS).all()
    assert entry.changed_to is None


def test_an_entry_that_was_only_pulled_gets_its_probes() -> None:
    assert judge(NOW, replace(NOW, engine=None), lambda: VECTORS).probes == pack(VECTORS)


def test_nothing_runs_when_nothing_changed() -> None:
    known = replace(BEFORE, equivalent=("zero",))

    assert judge(NOW, known, never) == known


CHANGES = [
    pytest.param({"fingerprint": "two", "fingerprints": {"16": "two", "8": "two-cut"}}, id="files"),
    pytest.param({"backend": "mlx"}, id="backend"),
    pytest.param({"engine": "openvino 2"}, id="version"),
    pytest.param({"compute": "bf16"}, id="arithmetic"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_moves_nothing_is_the_same_space(change: dict[str, object]) -> None:
    entry = judge(replace(NOW, **change), BEFORE, lambda: NEARLY)  # type: ignore[arg-type]

    assert entry.changed_to is None
    assert entry.probes == BEFORE.probes  # what was accepted stays the yardstick


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_moves_vectors_stands_until_it_is_accepted(change: dict[str, object]) -> None:
    changed = replace(NOW, **change)  # type: ignore[arg-type]

    entry = judge(changed, BEFORE, lambda: OTHERS)

    assert entry.changed_to == replace(changed, probes=pack(OTHERS))
    assert entry.cosine is not None
    assert entry.cosine < 0.999
    assert judge(changed, entry, never).changed_to == entry.changed_to


def test_old_fingerprints_of_the_same_space_are_kept() -> None:
    two = replace(NOW, fingerprint="two", fingerprints={"16": "two", "8": "two-cut"})
    known = replace(BEFORE, equivalent=("zero",))

    assert judge(two, known, lambda: NEARLY).equivalent == ("one", "one-cut", "zero")


def test_a_change_that_is_undone_leaves_no_warning() -> None:
    standing = judge(replace(NOW, fingerprint="two"), BEFORE, lambda: OTHERS)

    assert judge(NOW, standing, never) == BEFORE


def test_vectors_of_another_size_or_without_end_are_no_likeness() -> None:
    infinite = VECTORS.copy()
    infinite[3, 3] = np.inf

    assert lowest_cosine(VECTORS, VECTORS[:, :8]) == 0
    assert lowest_cosine(VECTORS, infinite) == 0
    assert lowest_cosine(VECTORS, unpack("AAAA", len(PROBES))) == 0
