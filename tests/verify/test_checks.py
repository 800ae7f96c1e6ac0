"""Each check alone, on correct and on wrong vectors."""

from dataclasses import replace

import numpy as np
import pytest

from emberd.backends.base import Precision
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import PROBES, encode
from emberd.vectors import Matrix, normalize
from emberd.verify import checks, paraphrases
from emberd.verify.finding import Finding

SPEC = ModelSpec(name="m", sources=(Source(path="m"),), dimensions=64, pooling="mean")


def probes(cosine: float) -> str:
    """Return probe vectors, the last of which has this cosine to that of others."""
    rows = [[1.0, 0.0]] * (len(PROBES) - 1)
    return encode([*rows, [cosine, (1 - cosine**2) ** 0.5]])


BEFORE = LockEntry(source="path:m", folder="m", fingerprint="old", probes=probes(1.0))


def unit(rows: int, *, seed: int = 1) -> Matrix:
    """Random directions."""
    return normalize(np.random.default_rng(seed).normal(size=(rows, 64)).astype(np.float32))


def turned(vectors: Matrix, cosine: float) -> Matrix:
    """Vectors of that cosine to the given ones."""
    away = unit(len(vectors), seed=2)
    away = normalize(away - (away * vectors).sum(axis=1, keepdims=True) * vectors)
    result: Matrix = (cosine * vectors + np.sqrt(1 - cosine**2) * away).astype(np.float32)
    return result


def pairs(closeness: float) -> Matrix:
    """Sixteen vectors, each as near to its partner as `closeness` says."""
    first = unit(8)
    return np.stack([first, turned(first, closeness)], axis=1).reshape(16, 64)


def assert_advises(finding: Finding, verdict: str = "failed") -> None:
    assert finding.verdict == verdict
    assert finding.detail
    assert finding.advice.endswith((".", ")"))


def test_a_size_that_is_not_what_was_asked_for_fails() -> None:
    assert checks.check_dimensions(SPEC, {64: 64, 32: 32}).verdict == "ok"
    assert_advises(checks.check_dimensions(SPEC, {64: 64, 32: 48}))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_one_unusable_vector_fails(value: float) -> None:
    vectors = unit(5)
    assert checks.check_finite(vectors).verdict == "ok"

    vectors[3] = value

    assert_advises(checks.check_finite(vectors))
    assert "4 of 5" in checks.check_finite(vectors).detail


def test_a_length_other_than_1_fails_where_the_registry_normalizes() -> None:
    vectors = unit(5)
    assert checks.check_unit_length(SPEC, vectors).verdict == "ok"

    vectors[2] *= 1.01

    assert_advises(checks.check_unit_length(SPEC, vectors))
    as_is = replace(SPEC, normalize=False)
    assert checks.check_unit_length(as_is, vectors).verdict == "skipped"


def test_a_vector_that_its_neighbours_move_fails() -> None:
    batch = unit(6)

    assert checks.check_company(batch, batch, batch).verdict == "ok"
    assert_advises(checks.check_company(batch, turned(batch, 0.9998), batch))
    assert_advises(checks.check_company(batch, batch, batch[::-1]))


def test_an_empty_text_without_tokens_fails() -> None:
    assert checks.check_shortest(2, truncated=False).verdict == "ok"
    assert_advises(checks.check_shortest(0, truncated=False))


@pytest.mark.parametrize(
    ("tokens", "truncated", "refused"),
    [(128, True, True), (512, False, True), (512, True, False)],
)
def test_a_long_text_cut_elsewhere_or_without_a_word_fails(
    tokens: int, truncated: bool, refused: bool
) -> None:
    assert checks.check_longest(512, 512, truncated=True, refused=True).verdict == "ok"
    assert_advises(checks.check_longest(512, tokens, truncated=truncated, refused=refused))


def test_paraphrases_among_strangers_fail_a_built_in_model_and_warn_of_a_users_own() -> None:
    near, far = pairs(0.8), pairs(0.1)

    assert paraphrases.partners_found(near) == 16
    assert paraphrases.separation(near) > 2 * paraphrases.separation(far)
    assert checks.check_paraphrases("m", near, built_in=True).verdict == "ok"
    assert_advises(checks.check_paraphrases("m", far, built_in=True))
    assert_advises(checks.check_paraphrases("m", far, built_in=False), "warning")


def test_vectors_that_are_all_alike_are_no_paraphrases() -> None:
    alike = np.repeat(unit(1), 16, axis=0)

    assert_advises(checks.check_paraphrases("m", alike, built_in=True))


def test_paraphrases_whose_words_a_model_does_not_know_are_no_paraphrases() -> None:
    some = pairs(0.8)
    some[3] = 0

    found = checks.check_paraphrases("m", some, built_in=True)

    assert_advises(found)
    assert "1 of 16 texts" in found.detail


def test_another_pooling_that_is_clearly_better_is_proposed() -> None:
    right = checks.check_pooling(SPEC, {"mean": 7.8, "cls": 5.2, "last": 5.3}, built_in=True)
    close = checks.check_pooling(SPEC, {"mean": 6.5, "cls": 7.0, "last": 5.3}, built_in=True)
    wrong = checks.check_pooling(SPEC, {"mean": 5.2, "cls": 7.8, "last": 5.3}, built_in=True)
    users = checks.check_pooling(SPEC, {"mean": 5.2, "cls": 7.8, "last": 5.3}, built_in=False)
    noise = checks.check_pooling(SPEC, {"mean": 0.1, "cls": 0.9, "last": 0.0}, built_in=True)

    assert [right.verdict, close.verdict, noise.verdict] == ["ok", "ok", "ok"]
    assert_advises(wrong)
    assert "it may be cls" in wrong.advice
    assert_advises(users, "warning")


@pytest.mark.parametrize(
    ("precision", "enough", "too_little"),
    [("bf16", 0.9995, 0.998), ("8bit", 0.992, 0.98), ("4bit", 0.86, 0.79)],
)
def test_each_precision_may_lose_only_so_much(
    precision: Precision, enough: float, too_little: float
) -> None:
    full = unit(9)

    assert checks.check_precision(precision, turned(full, enough), full).verdict == "ok"
    assert_advises(checks.check_precision(precision, turned(full, too_little), full))


def test_full_precision_that_is_not_the_reference_fails() -> None:
    reference = unit(4)

    assert checks.check_reference("m", reference, reference).verdict == "ok"
    assert_advises(checks.check_reference("m", turned(reference, 0.999), reference))
    assert_advises(checks.check_reference("m", reference[:, :32], reference))


def test_backends_have_to_agree_more_closely_in_full_precision() -> None:
    def check(arithmetic: set[str], lowest: float) -> Finding:
        return checks.check_agreement("other", arithmetic, lowest, "of 3 texts")

    assert check({"f32"}, 0.99995).verdict == "ok"
    assert_advises(check({"f32"}, 0.9995))
    for half in ({"bf16"}, {"f32", "bf16"}, {"f16", "f32"}):
        assert check(half, 0.9995).verdict == "ok"
        assert_advises(check(half, 0.998))
    assert check({"f32", "bf16"}, 0.9995).detail.endswith("of 3 texts; bf16 and f32")


def test_a_space_of_another_limit_fails_though_short_texts_have_the_same_vectors() -> None:
    cut = replace(BEFORE, fingerprint="new", options=SpaceOptions(max_tokens=128))
    before = replace(BEFORE, options=SpaceOptions(max_tokens=512))

    found = checks.check_space("m", before, replace(before, changed_to=cut), probes(1.0))

    assert_advises(found)
    assert "after 512 tokens (before) and 128 tokens (now)" in found.detail


def test_a_space_that_moved_fails_even_when_nothing_is_known_to_have_changed() -> None:
    same, renamed = BEFORE, replace(BEFORE, fingerprint="new")

    assert checks.check_space("m", None, same, probes(1.0)).verdict == "ok"
    assert checks.check_space("m", BEFORE, same, probes(1.0)).verdict == "ok"
    assert "the same as old" in checks.check_space("m", BEFORE, renamed, probes(0.9995)).detail
    assert_advises(checks.check_space("m", BEFORE, same, probes(0.5)))
    changed = checks.check_space("m", BEFORE, replace(BEFORE, changed_to=renamed), probes(0.5))
    assert_advises(changed)
    assert "--accept m" in changed.advice
    assert "new, previously old" in changed.detail
