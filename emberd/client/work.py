"""A request divided among several servers: which server gets which part, and what came of it.

No network and no clock: `several` sends what `turns` says, and reports how each turn ended.
"""

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from emberd.client.address import Address
from emberd.client.requests import Request
from emberd.errors import (
    FingerprintMismatchError,
    NoServerError,
    TooLargeError,
    UnavailableError,
)

T = TypeVar("T")

PART_TEXTS = 256
AT_ONCE = 2  # parts that a server has of a request: one to compute, one on its way
ROUNDS = 2  # how often each server is tried with a part
PAUSE_S = 1.0  # between two rounds, and the first rest of a server that has failed
LONGEST_REST_S = 30.0
ELSEWHERE = (NoServerError, UnavailableError)  # what need not be so at another server

Spaces = MutableMapping[Hashable, tuple[str, Address]]
"""The first fingerprint that came for something, and the server that gave it."""


@dataclass(slots=True, eq=False)
class Server:
    """One of several; shared by all that a client does at the same time.

    It rests after a failure, each time for longer: others are asked first.
    """

    address: Address
    has: int = 0  # parts, of all requests
    got: int = 0  # parts, ever
    failures: int = 0  # in a row
    rests_until_s: float = 0.0

    def fail(self, now_s: float) -> None:
        """Have it rest."""
        doublings = min(self.failures, 5)  # more than that is longer than the longest
        self.rests_until_s = now_s + min(LONGEST_REST_S, PAUSE_S * 2**doublings)
        self.failures += 1


@dataclass(slots=True, eq=False)
class Part(Generic[T]):
    """A part of a request: the texts from `start` on, and the servers that failed with it."""

    request: Request[T]
    start: int
    failed: list[int] = field(default_factory=list)
    not_before_s: float = 0.0


class Work(Generic[T]):
    """One request, until it is answered. `spaces` is what the client knows of them; added to."""

    def __init__(self, request: Request[T], servers: Sequence[Server], spaces: Spaces) -> None:
        self._request = request
        self._servers = servers
        self._spaces = spaces
        self._mine = [0] * len(servers)  # parts that each has of this request
        self._out: set[int] = set()  # servers that gave another space than the one stated
        parts = request.divided(PART_TEXTS)
        self._waiting = deque(Part(each, start) for start, each in parts)
        self._left = len(parts)
        self._answers: dict[int, T] = {}

    @property
    def is_done(self) -> bool:
        """Whether all parts are answered."""
        return not self._left

    def answer(self) -> T:
        """Return the answer of the whole, in the order of the texts."""
        return self._request.joined(sorted(self._answers.items()))

    def turns(self, now_s: float) -> Iterator[tuple[int, Part[T]]]:
        """Yield what to send now: the number of a server, and a part for it."""
        for _ in range(len(self._waiting)):
            part = self._waiting.popleft()
            at = self._choose(part, now_s)
            if at is None:
                self._waiting.append(part)
                continue
            self._mine[at] += 1
            self._servers[at].has += 1
            self._servers[at].got += 1
            yield at, part

    def wait_s(self, now_s: float) -> float:
        """Return after which time to ask for turns again, if no turn ends before."""
        times_s = [part.not_before_s for part in self._waiting]
        times_s += [server.rests_until_s for server in self._servers]
        return min((each - now_s for each in times_s if each > now_s), default=PAUSE_S)

    def ended(self, at: int, part: Part[T], said: T | BaseException, now_s: float) -> None:
        """Take the answer of a server, or what it failed with.

        Raises:
            EmberdError: the request has failed.
        """
        self.abandon([(at, part)])
        if isinstance(said, BaseException):
            self._failed(at, part, said, now_s)
            return
        try:
            self._check_space(self._servers[at].address, said)
        except FingerprintMismatchError as error:
            if not self._request.states_space:
                raise
            self._failed(at, part, error, now_s)
            return
        self._servers[at].failures = 0
        self._servers[at].rests_until_s = 0.0
        self._answers[part.start] = said
        self._left -= 1

    def abandon(self, turns: Iterable[tuple[int, Part[T]]]) -> None:
        """Forget turns, whatever becomes of them."""
        for at, _ in turns:
            self._mine[at] -= 1
            self._servers[at].has -= 1

    def _choose(self, part: Part[T], now_s: float) -> int | None:
        """Return the server for a part: of those that do not rest, the one with least to do."""
        if part.not_before_s > now_s:
            return None
        able = self._able(part)
        awake = [at for at in able if self._servers[at].rests_until_s <= now_s]
        free = [at for at in awake or able if self._mine[at] < AT_ONCE]
        in_order = self._request.method == "GET"

        def preference(at: int) -> tuple[int, int, int]:
            server = self._servers[at]
            return part.failed.count(at), *((at, 0) if in_order else (server.has, server.got))

        return min(free, key=preference, default=None)

    def _able(self, part: Part[T]) -> list[int]:
        """Return the servers that may still be tried with a part."""
        everyone = range(len(self._servers))
        return [at for at in everyone if at not in self._out and part.failed.count(at) < ROUNDS]

    def _failed(self, at: int, part: Part[T], error: BaseException, now_s: float) -> None:
        """Have another server try, or smaller parts; or raise the error."""
        if isinstance(error, TooLargeError) and (halves := part.request.halves()):
            self._waiting.extendleft(Part(each, part.start + start) for start, each in halves)
            self._left += len(halves) - 1
            return
        if isinstance(error, ELSEWHERE):
            self._servers[at].fail(now_s)
        elif isinstance(error, FingerprintMismatchError):
            self._out.add(at)
        else:
            raise error
        part.failed.append(at)
        self._waiting.appendleft(part)
        if not all(map(self._able, self._waiting)):  # a server that is out is so for all of them
            raise error
        if all(each in part.failed for each in self._able(part)):
            part.not_before_s = now_s + PAUSE_S

    def _check_space(self, address: Address, answer: T) -> None:
        """Compare with the first answer to what was asked, and of the model that answered."""
        if self._request.space is None:
            return
        said: Any = answer
        for key in (self._request.space, (*self._request.space[1:], said.model)):
            space, first = self._spaces.setdefault(key, (said.fingerprint, address))
            if said.fingerprint != space:
                raise FingerprintMismatchError(
                    f"The servers give different spaces: {first} gave {space}, and {address} gives"
                    f" {said.fingerprint}.",
                    hint="Give both the same model (`emberd ps` shows what they have), or leave one"
                    " out. If the model was changed on purpose, make a new client.",
                )
