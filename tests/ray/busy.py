"""Clients that ask without pause while something breaks, and what they got."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2

import emberd

TEXTS = ["a cat eats", "the bird is a dog", "dog", "the cat"]
ASKERS = 4

Ask = Callable[[str], list[list[float]]]


def by_http(url: str, model: str) -> Ask:
    """Return a plain client that tries nothing twice."""
    http = httpx2.Client(base_url=url, timeout=120, trust_env=False)

    def ask(text: str) -> list[list[float]]:
        response = http.post("/embed", json={"texts": [text], "model": model})
        response.raise_for_status()
        rows: list[list[float]] = response.json()["embeddings"]
        return rows

    return ask


def by_client(urls: Sequence[str], model: str) -> Ask:
    """Return emberd's own client for several addresses."""
    client = emberd.Client(list(urls), timeout=120)

    def ask(text: str) -> list[list[float]]:
        rows: list[list[float]] = client.embed([text], model=model).vectors.tolist()
        return rows

    return ask


class Busy:
    """What askers got: answers `right` and `wrong`, and what `failed`."""

    def __init__(self, asks: Sequence[Ask], expected: dict[str, list[list[float]]]) -> None:
        self.right = self.wrong = 0
        self.failed: Counter[str] = Counter()
        self._expected = expected
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._go_on, args=(ask,), daemon=True) for ask in asks
        ]

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

    def _go_on(self, ask: Ask) -> None:
        number = 0
        while not self._over.is_set():
            text = TEXTS[number % len(TEXTS)]
            number += 1
            try:
                rows = ask(text)
            except Exception as error:  # noqa: BLE001 - whatever a client sees is counted
                with self._lock:
                    self.failed[f"{type(error).__name__}: {error}"[:200]] += 1
                continue
            is_right = rows == self._expected[text]
            with self._lock:
                self.right += is_right
                self.wrong += not is_right


@contextmanager
def busy(asks: Sequence[Ask], expected: dict[str, Any]) -> Iterator[Busy]:
    """Have clients ask while the block runs."""
    asking = Busy(asks, expected)
    asking.start()
    try:
        yield asking
    finally:
        asking.end()
