"""The one comparison of vector spaces: may vectors of one be compared with vectors of the other?

Two spaces are the same if they share a fingerprint. If their fingerprints differ, they are still
the same if their recorded limits and options agree and each of the eight probe texts has nearly the
same vector in both (cosine 0.999 or more), because files, backends and libraries may change without
moving a vector. The probe texts are short and get no prompt, so where texts are cut and what is put
in front of them is compared as it was recorded.

What was not recorded about a space never makes it different. If nothing at all was recorded, the
names of the models decide.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from emberd.dtypes import Dtype
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import lowest_cosine

SAME_SPACE = 0.999  # the lowest cosine of two vectors of one text; arithmetic in bf16 stays above

Verdict = Literal["same", "another", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What is known about a vector space; whatever is left empty is not known.

    Attributes:
        name: what to call it in a sentence.
        model: the model that gives it.
        fingerprints: all of its fingerprints: for each size, and for states that proved equal.
        sizes: the lengths of its vectors.
        options: its limits and options, as far as they were recorded.
        dtype: what float32 vectors were rounded to; vectors of two dtypes are never comparable.
        step: that of int8 and uint8.
        probes: the vectors of the probe texts, before rounding, as `probes.encode` returns them.
        gap: why no more is known about it.
    """

    name: str
    model: str | None = None
    fingerprints: Collection[str] = ()
    sizes: Collection[int] = ()
    options: SpaceOptions = SpaceOptions()  # noqa: RUF009 - it is frozen
    dtype: Dtype = "float"
    step: float | None = None
    probes: str = ""
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two spaces compare.

    `why` says what decided, in words. `differences` are those of their options. `cosine` is the
    lowest of any probe text, None if it was not needed or the probes of one are not known.
    """

    verdict: Verdict
    why: str
    differences: Sequence[str] = ()
    cosine: float | None = None

    @property
    def is_same(self) -> bool:
        """Whether vectors of the two may be compared, as far as is known."""
        return self.verdict == "same"


def compare(one: Space, other: Space) -> Comparison:
    """Compare two spaces by what is known of them; no model is loaded and no file is read."""
    if one.sizes and other.sizes and not {*one.sizes} & {*other.sizes}:
        return Comparison("another", f"{_sizes(one)} and {_sizes(other)} dimensions")
    differences = [
        *_rounding(one, other),
        *one.options.differences(other.options, (one.name, other.name)),
    ]
    shared = [found for found in other.fingerprints if found in one.fingerprints]
    if shared and not differences:
        return Comparison("same", f"fingerprint {shared[0]}")
    cosine = None
    if one.probes and other.probes:
        cosine = lowest_cosine(one.probes, other.probes, _common_size(one, other))
    if differences:
        return Comparison("another", "; ".join(differences), differences, cosine)
    if cosine is not None:
        verdict: Verdict = "same" if cosine >= SAME_SPACE else "another"
        return Comparison(verdict, f"lowest cosine of the probe texts {cosine:.3f}", (), cosine)
    return _without_probes(one, other)


def _rounding(one: Space, other: Space) -> list[str]:
    """Say how the numbers of the two differ."""
    if one.dtype != other.dtype:
        return [f"numbers are {one.dtype} ({one.name}) and {other.dtype} ({other.name})"]
    if one.step != other.step and None not in (one.step, other.step):
        return [f"the step of {one.dtype} is {one.step} ({one.name}) and {other.step}"]
    return []


def _without_probes(one: Space, other: Space) -> Comparison:
    """Decide when neither fingerprints nor probes showed that the two are the same."""
    fingerprints = [next(iter(space.fingerprints), None) for space in (one, other)]
    if None in fingerprints and one.model is not None and one.model == other.model:
        return Comparison("same", f"both are of the model {one.model}")
    gaps = [space.gap for space in (one, other) if space.gap]
    if gaps:
        return Comparison("unknown", " and ".join(gaps))
    if None in fingerprints:
        return Comparison("unknown", "not enough is recorded to compare them")
    return Comparison("another", f"fingerprints {fingerprints[0]} and {fingerprints[1]}")


def _common_size(one: Space, other: Space) -> int | None:
    """Return the largest size that both have; None if no sizes are known."""
    common = {*one.sizes} & {*other.sizes} or {*one.sizes, *other.sizes}
    return max(common, default=None)


def _sizes(space: Space) -> str:
    return ", ".join(map(str, space.sizes))
