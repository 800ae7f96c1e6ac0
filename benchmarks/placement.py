"""Which processors a server may use, and which are left for the clients that load it.

Both are pinned, so that one machine can show what fewer cores give. Servers get one thread of each
physical core before they get a second one of any, as far as the system tells them apart.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SYSTEM = Path("/sys/devices/system/cpu")


@dataclass(frozen=True, slots=True)
class Placement:
    """The processors (as Linux numbers them) of the server and of its clients.

    `shares` says what the clients share with the server: `nothing`, `cores` (they run on the other
    hyperthreads of its cores) or `processors` (the same ones).
    """

    server: tuple[int, ...]
    clients: tuple[int, ...]
    physical_cores: int
    shares: str

    def facts(self) -> dict[str, object]:
        """Return what the results say about it."""
        return asdict(self) | {"cores": len(self.server)}


def siblings(processors: Sequence[int], system: Path = SYSTEM) -> list[list[int]]:
    """Return the processors of each physical core, in order; alone where Linux does not say."""
    cores: dict[str, list[int]] = {}
    for number in processors:
        try:
            shared = (system / f"cpu{number}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            shared = str(number)
        cores.setdefault(shared, []).append(number)
    return list(cores.values())


def place(count: int, cores: Sequence[Sequence[int]]) -> Placement:
    """Choose `count` processors for a server.

    Raises:
        ValueError: the machine has fewer.
    """
    first = [core[0] for core in cores]
    second = [number for core in cores for number in core[1:]]
    every = first + second
    if not 1 <= count <= len(every):
        raise ValueError(f"{count} cores: this machine gives us {len(every)}.")
    server = every[:count]
    used = [core for core in cores if set(core) & set(server)]
    free = [number for core in cores if core not in used for number in core]
    beside = [number for core in used for number in core if number not in server]
    clients, shares = (
        (free, "nothing") if free else (beside, "cores") if beside else (server, "processors")
    )
    return Placement(tuple(sorted(server)), tuple(sorted(clients)), len(used), shares)


def available() -> list[int]:
    """Return the processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextmanager
def running_on(processors: Sequence[int]) -> Iterator[None]:
    """Pin this thread, and every process that it starts within the context."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
