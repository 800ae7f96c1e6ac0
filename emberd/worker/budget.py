"""How many padded tokens a batch may have, found by measuring this machine while it works.

More tokens use the processor better, up to a point; fewer let a short query overtake a bulk job
sooner. The smallest budget that is nearly as fast as the best one is both fast and fair.
"""

from collections import deque
from threading import Lock

import numpy as np

FIRST_TOKENS = 512  # the best for MiniLM on two cores: 32 ms a batch (docs/performance.md)
FEWEST_TOKENS = 64
MOST_TOKENS = 32_768
LONGEST_S = 0.045  # a batch should take no longer, whatever the speed: queries wait for it
NEARLY = 0.93  # this share of the best speed is fast enough
FULL = 0.75  # a batch that uses less of its budget says nothing about it
SAMPLES = 4  # full batches before a budget is judged
KEPT = 9  # samples per budget; the median tolerates a few slowed down by other programs
AGAIN = 200  # after so many full batches, the neighbours are tried again: the load may have changed


class Budget:
    """The budget, a power of two. Thread-safe."""

    def __init__(self, tokens: int = FIRST_TOKENS) -> None:
        self.tokens = tokens
        self._seen: dict[int, deque[float]] = {}  # budget -> padded tokens per second
        self._notes = 0
        self._noting = Lock()

    @property
    def waste_tokens(self) -> int:
        """How much padding a batch may have: about what starting another batch would cost."""
        return self.tokens // 8

    def note(self, padded_tokens: int, seconds: float) -> None:
        """Record how long a batch took, and change the budget if another is better."""
        if not FULL * self.tokens <= padded_tokens <= self.tokens or seconds <= 0:
            return
        with self._noting:
            self._learn(padded_tokens, seconds)

    def _learn(self, padded_tokens: int, seconds: float) -> None:
        seen = self._seen.setdefault(self.tokens, deque(maxlen=KEPT))
        seen.append(padded_tokens / seconds)
        self._notes += 1
        if self._notes % AGAIN == 0:
            for neighbour in (self.tokens // 2, self.tokens * 2):
                self._seen.pop(neighbour, None)
        if len(seen) >= SAMPLES:
            self.tokens = self._choose()

    def _choose(self) -> int:
        """Return the best budget, or a neighbour of it that has not been tried."""
        speed = {tokens: float(np.median(seen)) for tokens, seen in self._seen.items()}
        seconds = {tokens: tokens / speed[tokens] for tokens in speed}
        allowed = [tokens for tokens in speed if seconds[tokens] <= LONGEST_S]
        if not allowed:  # the model is too slow for any of them: go down
            return max(min(speed) // 2, FEWEST_TOKENS)
        fastest = max(speed[tokens] for tokens in allowed)
        best = min(tokens for tokens in allowed if speed[tokens] >= NEARLY * fastest)
        double, half = best * 2, best // 2
        if double not in speed and double <= MOST_TOKENS and seconds[best] * 2 <= LONGEST_S:
            return double
        if half not in speed and half >= FEWEST_TOKENS and seconds[best] > LONGEST_S / 4:
            return half
        return best
