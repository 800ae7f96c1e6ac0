"""What a load decides: the same space, another one, or nothing to decide."""

from dataclasses import replace

import numpy as np
import pytest

from emberd.spaces.judge import judge
from emberd.spaces.lock import LockEntry
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import PROBES, decode, encode
from emberd.vectors import Matrix

DRAW = np.random.default_rng(5)
VECTORS: Matrix = DRAW.standard_normal((len(PROBES), 16)).astype(np.float32)
NEARLY: Matrix = VECTORS + 0.01 * DRAW.standard_normal(VECTORS.shape).astype(np.float32)
OTHERS: Matrix = DRAW.standard_normal(VECTORS.shape).astype(np.float32)

OPTIONS = SpaceOptions(
    max_tokens=512, normalize=True, prompts={"query": "q: "}, include_prompt=True, lower_case=False
)
NOW = LockEntry(
    source="hf:me/mine",
    folder="/hub/mine",
    fingerprint="one",
    fingerprints={"16": "one", "8": "one-cut"},
    backend="openvino",
    engine="openvino 1",
    compute="f32",
    options=OPTIONS,
)
BEFORE = replace(NOW, probes=encode(VECTORS))


def never() -> Matrix:
    raise AssertionError("the probes ran")


def test_a_first_load_remembers_the_probes() -> None:
    entry = judge(NOW, None, lambda: VECTORS)

    assert (np.array(decode(entry.probes)) == VECTORS).all()
    assert entry.changed_to is None


def test_an_entry_that_was_only_pulled_gets_its_probes() -> None:
    assert judge(NOW, replace(NOW, engine=None), lambda: VECTORS).probes == encode(VECTORS)


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

    assert entry.changed_to == replace(changed, probes=encode(OTHERS))
    assert entry.cosine is not None
    assert entry.cosine < 0.999
    assert judge(changed, entry, never).changed_to == entry.changed_to


OTHER_OPTIONS = [
    {"max_tokens": 128},
    {"normalize": False},
    {"prompts": {}},
    {"prompts": {"query": "q: ", "document": "d: "}},
    {"include_prompt": False},
    {"lower_case": True},
]


@pytest.mark.parametrize("change", OTHER_OPTIONS, ids=str)
def test_what_the_probe_texts_cannot_show_is_another_space_too(change: dict[str, object]) -> None:
    options = replace(OPTIONS, **change)  # type: ignore[arg-type]
    changed = replace(NOW, fingerprint="two", fingerprints={"16": "two"}, options=options)

    entry = judge(changed, BEFORE, lambda: VECTORS)

    assert entry.changed_to == replace(changed, probes=encode(VECTORS))
    assert entry.cosine == pytest.approx(1)
    assert entry.equivalent == ()
    assert OPTIONS.differences(options)[0] in entry.reasons
    assert judge(changed, entry, never) == entry
    assert judge(NOW, entry, never) == BEFORE


def as_older(entry: LockEntry, max_tokens: int | None) -> LockEntry:
    """Return an entry as written by a version that recorded no other option."""
    return replace(entry, options=SpaceOptions(max_tokens=max_tokens), engine="openvino 0")


@pytest.mark.parametrize("recorded", [512, None])
def test_an_entry_of_an_older_version_gets_its_options_without_a_word(
    recorded: int | None,
) -> None:
    entry = judge(NOW, as_older(BEFORE, recorded), lambda: NEARLY)

    assert entry == BEFORE


def test_of_an_older_version_what_it_did_record_counts() -> None:
    """An upgrade may read a limit that earlier versions ignored."""
    cut = replace(NOW, fingerprint="two", options=replace(OPTIONS, max_tokens=128))

    entry = judge(cut, as_older(BEFORE, 512), lambda: VECTORS)

    assert entry.changed_to == replace(cut, probes=encode(VECTORS))
    assert "texts are cut after 512 tokens (before) and 128 tokens (now)" in entry.reasons


def test_old_fingerprints_of_the_same_space_are_kept() -> None:
    two = replace(NOW, fingerprint="two", fingerprints={"16": "two", "8": "two-cut"})
    known = replace(BEFORE, equivalent=("zero",))

    assert judge(two, known, lambda: NEARLY).equivalent == ("one", "one-cut", "zero")


def test_a_change_that_is_undone_leaves_no_warning() -> None:
    standing = judge(replace(NOW, fingerprint="two"), BEFORE, lambda: OTHERS)

    assert judge(NOW, standing, never) == BEFORE


@pytest.mark.parametrize("change", [{}, {"engine": "openvino 2"}, {"fingerprint": "renamed"}])
def test_the_steps_of_int8_stay_with_the_space(change: dict[str, object]) -> None:
    before = replace(BEFORE, steps={"16": 0.25})

    now = judge(replace(NOW, **change), before, lambda: NEARLY)  # type: ignore[arg-type]

    assert now.changed_to is None
    assert now.steps == {"16": 0.25}


def test_another_space_has_steps_of_its_own() -> None:
    before = replace(BEFORE, steps={"16": 0.25})

    changed = judge(replace(NOW, engine="openvino 2"), before, lambda: OTHERS)
    assert changed.changed_to
    assert (changed.steps, changed.now.steps) == ({"16": 0.25}, {})

    measured = changed.with_steps({"16": 0.5})
    again = judge(replace(NOW, engine="openvino 2"), measured, never)
    assert (again.steps, again.now.steps) == ({"16": 0.25}, {"16": 0.5})
