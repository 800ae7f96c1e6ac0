"""How many bytes requests hold in the server, from the first of a body to the last of its answer.

The pool counts the texts that wait; this counts their bytes. The gate puts a `Reservation` into the
ASGI scope and releases it when the request ends, however it ends. The routes change it on the way:
first the part of the body that has arrived, then its texts and the answer they will become. A
request that only announces a large body reserves nothing, so nobody can keep others out that way.
"""

from collections.abc import Callable

from starlette.types import Scope

from emberd.errors import QueueFullError
from emberd.units import format_size

KEY = "emberd.reservation"


class ByteBudget:
    """The bytes that all requests hold together; `limit` returns the most that is allowed now."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self.held_bytes = 0
        self._limit = limit

    def has_room(self, size_bytes: int, *, held_already: int = 0) -> bool:
        """Whether a request may hold this much. If it is the only one, it always may."""
        others_bytes = self.held_bytes - held_already
        return not others_bytes or others_bytes + size_bytes <= self._limit()


class Reservation:
    """The bytes of one request."""

    def __init__(self, budget: ByteBudget) -> None:
        self.size_bytes = 0
        self._budget = budget

    def check(self, size_bytes: int) -> None:
        """Raise `QueueFullError` if there is no room for a request of that size now."""
        if not self._budget.has_room(size_bytes, held_already=self.size_bytes):
            raise QueueFullError(
                f"Waiting requests already hold {format_size(self._budget.held_bytes)}.",
                hint="Try again in a moment, or raise limits.max_queued_bytes.",
            )

    def resize(self, size_bytes: int) -> None:
        """Hold this much from now on. Raises `QueueFullError`."""
        self.check(size_bytes)
        self.set(size_bytes)

    def set(self, size_bytes: int) -> None:
        """Hold this much whether there is room or not, as the bytes exist already; 0 at the end."""
        self._budget.held_bytes += size_bytes - self.size_bytes
        self.size_bytes = size_bytes


def reservation_of(scope: Scope) -> Reservation:
    """Return the request's reservation; an unlimited one if the request did not pass the gate."""
    reservation: Reservation = scope.get(KEY) or Reservation(ByteBudget(lambda: 0))
    return reservation
