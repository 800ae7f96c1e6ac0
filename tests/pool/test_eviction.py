"""The eviction policy: which models leave, which never do, and when it has to wait."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emberd.pool.eviction import Decision, Resident, choose_evictions

FITS = Decision(fits=True)
WAIT = Decision(fits=False)


def resident(name: str, *, used_s: float = 0.0, memory_bytes: int = 100, **state: bool) -> Resident:
    """A 100-byte model, except for what a test names."""
    return Resident(name, memory_bytes=memory_bytes, last_used_s=used_s, **state)


def decide(*residents: Resident, **limits: Any) -> Decision:  # noqa: ANN401 - numbers and a bool
    """Ask for room for 100 bytes; only the limits that a test names apply."""
    wide = {"incoming_bytes": 100, "budget_bytes": 10**9, "max_loaded": 10**9}
    return choose_evictions(residents, **{**wide, **limits})


def leave(*names: str) -> Decision:
    return Decision(fits=False, leave=names)


def test_nobody_leaves_when_there_is_room() -> None:
    assert decide() == FITS
    assert decide(resident("a"), budget_bytes=200, max_loaded=2) == FITS


@pytest.mark.parametrize("limit", [{"max_loaded": 2}, {"budget_bytes": 299}])
def test_the_least_recently_used_model_leaves_first(limit: dict[str, int]) -> None:
    old, new = resident("old", used_s=1), resident("new", used_s=2)

    assert decide(new, old, **limit) == leave("old")


@pytest.mark.parametrize(
    ("budget_bytes", "decision"),
    [(400, FITS), (399, leave("a")), (299, leave("a", "b")), (199, leave("a", "b", "c"))],
)
def test_no_more_leave_than_the_budget_needs(budget_bytes: int, decision: Decision) -> None:
    residents = [resident("a", used_s=1), resident("b", used_s=2), resident("c", used_s=3)]

    assert decide(*residents, budget_bytes=budget_bytes) == decision


def test_no_more_leave_than_their_number_needs() -> None:
    residents = [resident("a", used_s=1), resident("b", used_s=2), resident("c", used_s=3)]

    assert decide(*residents, max_loaded=2) == leave("a", "b")


def test_both_limits_have_to_hold() -> None:
    small, large = resident("small", used_s=1, memory_bytes=1), resident("large", used_s=2)

    assert decide(small, large, max_loaded=2, budget_bytes=150) == leave("small", "large")


@pytest.mark.parametrize("state", ["busy", "pinned"])
def test_a_busy_or_pinned_model_stays_even_when_it_is_the_oldest(state: str) -> None:
    stays, idle = resident("stays", used_s=1, **{state: True}), resident("idle", used_s=2)

    assert decide(stays, idle, max_loaded=2) == leave("idle")


@pytest.mark.parametrize("state", ["busy", "pinned"])
def test_when_nobody_can_leave_one_waits(state: str) -> None:
    assert decide(resident("stays", **{state: True}), max_loaded=1) == WAIT


def test_idle_models_leave_before_busy_ones_are_drained() -> None:
    busy, idle = resident("busy", used_s=1, busy=True), resident("idle", used_s=2)

    assert decide(busy, idle, max_loaded=2, drain_busy=True) == leave("idle")
    assert decide(busy, idle, max_loaded=1, drain_busy=True) == leave("idle", "busy")


def test_the_least_recently_used_busy_model_is_drained_first() -> None:
    old, new = resident("old", used_s=1, busy=True), resident("new", used_s=2, busy=True)

    assert decide(new, old, max_loaded=2, drain_busy=True) == leave("old")


def test_a_pinned_model_is_not_even_drained() -> None:
    pinned = resident("pinned", busy=True, pinned=True)

    assert decide(pinned, max_loaded=1, drain_busy=True) == WAIT


def test_a_model_that_is_leaving_counts_until_it_is_gone() -> None:
    assert decide(resident("leaving", leaving=True), max_loaded=1) == WAIT


def test_a_model_that_is_leaving_already_is_room_to_come() -> None:
    leaving, idle = resident("leaving", used_s=2, leaving=True), resident("idle", used_s=1)

    assert decide(leaving, idle, max_loaded=2) == WAIT  # for it, and nobody else has to go
    assert decide(leaving, idle, max_loaded=1) == leave("idle")


RESIDENTS = st.lists(
    st.builds(
        Resident,
        name=st.uuids().map(str),
        memory_bytes=st.integers(0, 300),
        last_used_s=st.floats(0, 100),
        busy=st.booleans(),
        pinned=st.booleans(),
        leaving=st.booleans(),
    ),
    max_size=6,
)


@given(RESIDENTS, st.integers(0, 300), st.integers(0, 1000), st.integers(1, 6), st.booleans())
def test_whatever_is_loaded_the_rules_hold(
    residents: list[Resident],
    incoming_bytes: int,
    budget_bytes: int,
    max_loaded: int,
    drain_busy: bool,
) -> None:
    decision = choose_evictions(
        residents,
        incoming_bytes=incoming_bytes,
        budget_bytes=budget_bytes,
        max_loaded=max_loaded,
        drain_busy=drain_busy,
    )

    used_bytes = sum(model.memory_bytes for model in residents)
    room = len(residents) < max_loaded and used_bytes + incoming_bytes <= budget_bytes
    assert decision.fits == room
    assert not (decision.fits and decision.leave)
    by_name = {model.name: model for model in residents}
    chosen = [by_name[name] for name in decision.leave]
    assert len(set(decision.leave)) == len(decision.leave)
    assert not any(model.pinned or model.leaving for model in chosen)
    assert drain_busy or not any(model.busy for model in chosen)


def test_nobody_leaves_in_vain() -> None:
    pinned = Resident("pinned", memory_bytes=300, last_used_s=0, pinned=True)
    idle = Resident("idle", memory_bytes=50, last_used_s=0)

    decision = choose_evictions([pinned, idle], incoming_bytes=200, budget_bytes=400, max_loaded=9)

    assert decision == Decision(fits=False)


def shrink(*residents: Resident, **limits: Any) -> Decision:  # noqa: ANN401 - numbers
    """Decide for lowered limits, with no model coming in."""
    return decide(*residents, **{"incoming_bytes": None, "drain_busy": True, **limits})


def test_lowered_limits_make_the_least_recently_used_leave() -> None:
    a, b, c = (resident(name, used_s=n) for n, name in enumerate("abc"))

    assert shrink(c, a, b, max_loaded=3, budget_bytes=300) == FITS
    assert shrink(c, a, b, max_loaded=2) == leave("a")
    assert shrink(c, a, b, budget_bytes=199) == leave("a", "b")


def test_lowered_limits_make_leave_who_can_even_when_it_is_not_enough() -> None:
    pinned, idle, busy = resident("p", pinned=True), resident("i"), resident("b", busy=True)

    assert shrink(pinned, busy, idle, budget_bytes=50) == leave("i", "b")
