"""Which models have to leave memory, decided without touching a process or a clock.

`Room` asks, this answers, and `Room` acts. The same input always gives the same answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A loaded model as the policy sees it; `last_used_s` is monotonic seconds."""

    name: str
    memory_bytes: int
    last_used_s: float
    busy: bool = False
    pinned: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`fits`: the incoming model may start now. `leave`: who has to leave first, in this order.

    With neither, no model can leave yet: ask again when something has changed.
    """

    fits: bool
    leave: tuple[str, ...] = ()


def choose_evictions(
    residents: Sequence[Resident],
    *,
    incoming_bytes: int | None,
    budget_bytes: int,
    max_loaded: int,
    drain_busy: bool = False,
) -> Decision:
    """Decide who leaves so that one more model fits both limits, least recently used first.

    With `incoming_bytes=None`, no model is coming: decide who leaves so that the others fit limits
    that were lowered.

    Pinned models never leave; busy ones only when `drain_busy`, after the idle ones. Models that
    are leaving already count as resident until they are gone, but nobody else leaves for the room
    that they will free. If all who may leave would not make enough room, nobody leaves.
    """
    one_more = 0 if incoming_bytes is None else 1

    def over(staying: Sequence[Resident]) -> bool:
        used_bytes = sum(resident.memory_bytes for resident in staying)
        too_many = len(staying) + one_more > max_loaded
        return too_many or used_bytes + (incoming_bytes or 0) > budget_bytes

    if not over(residents):
        return Decision(fits=True)
    staying = [resident for resident in residents if not resident.leaving]
    candidates = sorted(
        (r for r in staying if not r.pinned and (drain_busy or not r.busy)),
        key=lambda resident: (resident.busy, resident.last_used_s),
    )
    leave: list[str] = []
    for resident in candidates:
        if not over(staying):
            break
        staying.remove(resident)
        leave.append(resident.name)
    return Decision(fits=False, leave=() if one_more and over(staying) else tuple(leave))
