"""English-looking texts without end, none of them ever twice, the same ones in every run.

A cache can then answer nothing, and two servers that are measured side by side get equal work.
"""

import random
from pathlib import Path

WORDS = (Path(__file__).parent / "words.txt").read_text().split()
WORDS_OF_A_NUMBER = 3  # so many words tell len(WORDS) ** 3 texts apart


class Texts:
    """Each text begins with its number, spelled in words; the rest is drawn with that as seed."""

    def __init__(self) -> None:
        self._count = 0

    def take(self, texts: int, words: int) -> list[str]:
        """Return so many new texts of so many words each, at least three."""
        return [self._next(words) for _ in range(texts)]

    def _next(self, words: int) -> str:
        number = self._count
        self._count += 1
        chance = random.Random(number)  # noqa: S311 - no secret
        rest = chance.choices(WORDS, k=words - WORDS_OF_A_NUMBER)
        return " ".join((*_spell(number), *rest))


def _spell(number: int) -> list[str]:
    spelled = []
    for _ in range(WORDS_OF_A_NUMBER):
        number, digit = divmod(number, len(WORDS))
        spelled.append(WORDS[digit])
    return spelled
