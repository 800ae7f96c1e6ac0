"""Generates English passages: meaningful, never repeated, and identical in every run.

So no cache can answer them, and all servers in a comparison get the same work.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

GRAMMAR = Path(__file__).parent / "grammar.yaml"
SHORTEST_WORDS, LONGEST_WORDS = 3, 400
BLOCK = 50  # this many passages cover the whole range of lengths
BEFORE_A_VOWEL = re.compile(r"\b([Aa])(?= [aeio])")
_TRIES = 1000


class Texts:
    """A generator of texts; the same seed gives the same texts. Lengths are in words.

    Uses only `random.Random.random`, as nothing else is guaranteed to give the same numbers in
    every version of Python.
    """

    def __init__(self, seed: int = 0) -> None:
        self._grammar = _grammar()
        self._topics: list[dict[str, list[str]]] = list(self._grammar["topics"].values())
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._given: set[str] = set()

    def take(self, count: int, words: int) -> list[str]:
        """Return `count` new passages of exactly `words` words, which must be at least three."""
        return [self._new(lambda: self._passage(words)) for _ in range(count)]

    def queries(self, count: int) -> list[str]:
        """Return `count` new short questions, of 5 to 13 words."""
        return [self._new(lambda: self._fill("questions", self._topic())) for _ in range(count)]

    def passages(self, count: int) -> list[str]:
        """Return `count` passages of mixed lengths, 3 to 400 words.

        Each block of `BLOCK` has the same lengths in another order, so all whole blocks are the
        same amount of work.
        """
        made: list[str] = []
        while len(made) < count:
            lengths = sorted(mixed_lengths(), key=lambda _: self._random.random())
            made += [text for words in lengths for text in self.take(1, words)]
        return made[:count]

    def _new(self, make: Callable[[], str]) -> str:
        for _ in range(_TRIES):
            text = make()
            if text not in self._given:
                self._given.add(text)
                return text
        raise ValueError("the grammar has no new text of that length")

    def _passage(self, words: int) -> str:
        topic = self._topic()
        kind = "notes" if words < 8 else "sentences"
        found: list[str] = []
        while len(found) < words:
            found += self._fill(kind, topic).split()
        text = " ".join(found[:words])
        return text if kind == "notes" else text.rstrip(".,;:") + "."

    def _fill(self, kind: str, topic: dict[str, list[str]]) -> str:
        pattern: str = self._choose(self._grammar[kind])
        head, *parts = pattern.split("{")
        text = head
        for part in parts:
            name, _, tail = part.partition("}")
            text += self._choose(topic.get(name) or self._grammar[name]) + tail
        return BEFORE_A_VOWEL.sub(r"\1n", text)

    def _topic(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = self._choose(self._topics)
        return found

    def _choose(self, among: Sequence[Any]) -> Any:  # noqa: ANN401 - an element of any type
        return among[int(self._random.random() * len(among))]


@cache
def _grammar() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(GRAMMAR.read_text(encoding="utf-8"))
    return found


def mixed_lengths() -> list[int]:
    """Return the lengths of a block, in words: half are under 35, and the mean is 84.

    Their logarithms are evenly spaced from 3 to 400 words, as in collections of notes, messages and
    document chunks: most texts are short, but most words are in long ones.
    """
    grows = math.log(LONGEST_WORDS / SHORTEST_WORDS) / (BLOCK - 1)
    return [round(SHORTEST_WORDS * math.exp(grows * place)) for place in range(BLOCK)]
