"""Clients that ask without pause while something breaks, and what they got."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2
import numpy as np

import emberd
from tests.ray.clusters import Served

TEXTS = ["a cat eats", "the bird is a dog", "dog", "the cat"]
ASKERS = 4
SAME = 0.99999  # cosine; a text's last bits depend on what is beside it in the batch

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Right: TypeAlias = Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class Asker:
    """A client, and how it asks for the vector of a text."""

    client: httpx2.Client | emberd.Client
    ask: Callable[[str], Vector]


def by_http(url: str, model: str) -> Asker:
    """Return a plain client that tries nothing twice."""
    http = httpx2.Client(base_url=url, timeout=120, trust_env=False)

    def ask(text: str) -> Vector:
        response = http.post("/embed", json={"texts": [text], "model": model})
        response.raise_for_status()
        return np.array(response.json()["embeddings"][0], np.float32)

    return Asker(http, ask)


def by_client(urls: Sequence[str], model: str) -> Asker:
    """Return emberd's own client for several addresses."""
    client = emberd.Client(list(urls), timeout=120)

    def ask(text: str) -> Vector:
        vectors: Vector = client.embed([text], model=model).vectors
        return vectors.reshape(-1)

    return Asker(client, ask)


def vectors_of(served: Served, model: str) -> Right:
    """Return the right answers, as of now."""
    embeddings = served.embed(*TEXTS, model=model)["embeddings"]
    return dict(zip(TEXTS, np.array(embeddings, np.float32), strict=True))


class Busy:
    """What askers got: answers that are `right`, `others` with their texts, and what `failed`."""

    def __init__(self, askers: Sequence[Asker], right: Right) -> None:
        self.right = 0
        self.others: list[tuple[str, Vector]] = []
        self.failed: Counter[str] = Counter()
        self.slowest_s = 0.0
        self._expected = right
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._go_on, args=(each,), daemon=True) for each in askers
        ]

    @property
    def wrong(self) -> int:
        """How many answers are not as expected."""
        return len(self.others)

    def are_of(self, right: Right) -> bool:
        """Whether all others are these."""
        return all(_same(vector, right[text]) for text, vector in self.others)

    def start(self) -> None:
        """Begin to ask."""
        for each in self._threads:
            each.start()

    def end(self) -> None:
        """Let everyone have the last answer."""
        self._over.set()
        for each in self._threads:
            each.join(150)
            assert not each.is_alive()

    def _go_on(self, asker: Asker) -> None:
        number = 0
        with asker.client:
            while not self._over.is_set():
                text = TEXTS[number % len(TEXTS)]
                number += 1
                began_s = time.monotonic()
                try:
                    vector = asker.ask(text)
                except Exception as error:  # noqa: BLE001 - whatever a client sees is counted
                    with self._lock:
                        self.failed[f"{type(error).__name__}: {error}"[:200]] += 1
                    continue
                is_right = _same(vector, self._expected[text])
                with self._lock:
                    self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
                    self.right += is_right
                    if not is_right:
                        self.others.append((text, vector))


@contextmanager
def busy(askers: Sequence[Asker], right: Right) -> Iterator[Busy]:
    """Have clients ask while the block runs."""
    asking = Busy(askers, right)
    asking.start()
    try:
        yield asking
    finally:
        asking.end()


def _same(one: Vector, other: Vector) -> bool:
    return one.shape == other.shape and float(one @ other) > SAME
