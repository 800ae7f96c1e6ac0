"""How many bytes requests hold in the server, from the first of a body to the last of its answer.

Texts that wait are counted by the pool; this counts what they take. The gate puts a `Share` into
the ASGI scope and gives it back when the request has ended, however it did; the routes change it:
what has come of the body, then its texts and the answer that they will become. What a request
announces holds nothing, so nobody keeps others out by announcing.
"""

from collections.abc import Callable

from starlette.types import Scope

from emberd.errors import QueueFullError
from emberd.units import format_size

KEY = "emberd.share"


class Held:
    """What all requests together hold; `limit` gives the most bytes of it, as it is now."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self.size_bytes = 0
        self._limit = limit

    def has_room(self, size_bytes: int, *, held_already: int = 0) -> bool:
        """Say whether a request may hold so much; one alone always may."""
        others_bytes = self.size_bytes - held_already
        return not others_bytes or others_bytes + size_bytes <= self._limit()


class Share:
    """What one request holds of it."""

    def __init__(self, held: Held) -> None:
        self.size_bytes = 0
        self._held = held

    def check(self, size_bytes: int) -> None:
        """Raise `QueueFullError` when there is no room now for a request of that size."""
        if not self._held.has_room(size_bytes, held_already=self.size_bytes):
            raise QueueFullError(
                f"Requests that wait hold {format_size(self._held.size_bytes)} already.",
                hint="Ask again in a moment, or raise limits.max_queued_bytes.",
            )

    def hold(self, size_bytes: int) -> None:
        """Hold so much from now on, instead of what was held. Raises `QueueFullError`."""
        self.check(size_bytes)
        self.set(size_bytes)

    def set(self, size_bytes: int) -> None:
        """Hold so much, room or not: it is there already; 0 at the end."""
        self._held.size_bytes += size_bytes - self.size_bytes
        self.size_bytes = size_bytes


def share_of(scope: Scope) -> Share:
    """Return the request's share; one of nothing where no gate was passed."""
    share: Share = scope.get(KEY) or Share(Held(lambda: 0))
    return share
