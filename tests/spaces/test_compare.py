"""When two spaces are the same: the whole rule, row by row."""

from dataclasses import replace
from math import sqrt

import pytest

from emberd.spaces.compare import SAME_SPACE, Space, compare
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import PROBES, encode

OPTIONS = SpaceOptions(
    max_tokens=512, normalize=True, prompts={"query": "q: "}, include_prompt=True, lower_case=False
)


def probes(cosine: float = 1.0) -> str:
    """Return probe vectors of 4 dimensions; the last one has this cosine to that of others."""
    rows = [[1.0, 0.0, 0.0, 0.0]] * (len(PROBES) - 1)
    return encode([*rows, [cosine, sqrt(1 - cosine**2), 0.0, 0.0]])


ONE = Space(
    name="one", model="m", fingerprints=("aa",), sizes=(4, 2), options=OPTIONS, probes=probes()
)
OTHER = replace(ONE, name="other", model="n", fingerprints=("bb",))
NOTHING = Space(name="other")
CUT = replace(OPTIONS, max_tokens=128)

RULE = [
    # by fingerprint
    pytest.param(ONE, replace(OTHER, fingerprints=("aa",), probes=""), "same", id="fingerprint"),
    pytest.param(ONE, replace(OTHER, fingerprints=("bb", "aa")), "same", id="equivalent"),
    pytest.param(
        ONE,
        replace(OTHER, fingerprints=("aa",), probes=probes(0.1)),
        "same",
        id="a fingerprint needs no probes",
    ),
    pytest.param(
        replace(ONE, probes=""), replace(OTHER, probes=""), "another", id="other fingerprints"
    ),
    # by probes and options
    pytest.param(ONE, OTHER, "same", id="probes"),
    pytest.param(ONE, replace(OTHER, probes=probes(0.9995)), "same", id="probes nearly"),
    pytest.param(ONE, replace(OTHER, probes=probes(0.99)), "another", id="probes moved"),
    pytest.param(ONE, replace(OTHER, probes="AAAA"), "another", id="damaged probes"),
    pytest.param(ONE, replace(OTHER, options=CUT), "another", id="other options"),
    pytest.param(
        ONE,
        replace(OTHER, fingerprints=("bb", "aa"), options=CUT),
        "another",
        id="equivalent before an option changed",
    ),
    pytest.param(ONE, replace(OTHER, options=SpaceOptions()), "same", id="options not recorded"),
    # by what numbers are
    pytest.param(ONE, replace(OTHER, dtype="int8"), "another", id="dtypes"),
    pytest.param(
        replace(ONE, dtype="int8", step=0.25),
        replace(OTHER, dtype="int8", step=0.25),
        "same",
        id="probes, and the same step",
    ),
    pytest.param(
        replace(ONE, dtype="int8", step=0.25),
        replace(ONE, dtype="int8", step=0.5),
        "another",
        id="steps",
    ),
    # by size
    pytest.param(ONE, replace(ONE, sizes=(3,)), "another", id="sizes"),
    pytest.param(ONE, replace(ONE, sizes=()), "same", id="sizes not recorded"),
    # by name, where nothing else is known
    pytest.param(ONE, replace(NOTHING, model="m"), "same", id="name"),
    pytest.param(
        ONE, replace(NOTHING, model="m", gap="never been loaded"), "same", id="name alone"
    ),
    pytest.param(ONE, replace(NOTHING, model="n", gap="never been loaded"), "unknown", id="gap"),
    pytest.param(ONE, NOTHING, "unknown", id="of several models"),
    pytest.param(NOTHING, NOTHING, "unknown", id="nothing"),
    pytest.param(
        ONE, replace(OTHER, probes="", gap="changed since"), "unknown", id="changed since a load"
    ),
]


@pytest.mark.parametrize(("one", "other", "verdict"), RULE)
def test_the_rule(one: Space, other: Space, verdict: str) -> None:
    found, reverse = compare(one, other), compare(other, one)

    assert (found.verdict, reverse.verdict) == (verdict, verdict)
    assert found.is_same == (verdict == "same")
    assert found.why


def test_only_the_size_that_both_give_is_compared() -> None:
    two = [[1.0, 0.0]] * len(PROBES)
    small = replace(OTHER, sizes=(2,), probes=encode(two))

    assert compare(ONE, small).is_same
    assert compare(small, ONE).is_same
    assert not compare(replace(ONE, sizes=()), replace(small, sizes=())).is_same


def test_the_least_alike_probe_decides() -> None:
    found = compare(ONE, replace(OTHER, probes=probes(0.9)))

    assert found.cosine == pytest.approx(0.9, abs=1e-6)
    assert found.cosine is not None
    assert found.cosine < SAME_SPACE


def test_differences_are_told_with_the_cosine_and_by_the_names_of_the_spaces() -> None:
    found = compare(ONE, replace(OTHER, options=CUT))

    assert found.differences == OPTIONS.differences(CUT, ("one", "other"))
    assert found.cosine == pytest.approx(1)


def test_what_is_missing_is_told_of_both() -> None:
    gaps = compare(Space(name="a", gap="a is not here"), Space(name="b", gap="b is not here"))

    assert gaps.why == "a is not here and b is not here"
