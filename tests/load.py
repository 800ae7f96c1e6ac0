"""Requests whose answers are known: what the soak, the kills and the overload send."""

import random
from collections.abc import Sequence

import httpx2
import numpy as np
import numpy.typing as npt

from tests.serving import Server

SAME = 0.999  # another batch is other arithmetic, in bf16 above all
OTHER = 0.99  # texts are chosen so that any two are less alike
WORDS = [
    "ferry", "leaves", "seven", "dark", "undo", "commit", "losing", "changes", "area", "circle",
    "preheat", "oven", "fold", "whites", "batter", "connection", "refused", "writing", "shard",
]  # fmt: skip

Vectors = npt.NDArray[np.float32]


def numbered(text: str, count: int) -> list[str]:
    """Return so many texts with a number before each: equal ones would be computed once."""
    return [f"{number} {text}" for number in range(count)]


class Known:
    """Texts, and the vectors that each model gave them while nothing was wrong."""

    def __init__(self, server: Server, models: Sequence[str], seed: int, count: int = 400) -> None:
        """Make up texts and have them embedded; those too much like another are left out."""
        chance = random.Random(seed)  # noqa: S311 - for repeating, not for secrets
        lengths = [max(1, min(300, int(chance.lognormvariate(2.5, 1.1)))) for _ in range(count)]
        self.texts = sorted({" ".join(chance.choices(WORDS, k=length)) for length in lengths})
        vectors = self._embed(server, models[0])
        alike = np.tril(vectors @ vectors.T, -1).max(axis=1)
        self.texts = [text for text, most in zip(self.texts, alike, strict=True) if most < OTHER]
        self._vectors = {model: self._embed(server, model) for model in models}

    def _embed(self, server: Server, model: str) -> Vectors:
        return np.array(server.embed(*self.texts, model=model)["embeddings"], np.float32)

    def some(self, chance: random.Random, count: int) -> list[int]:
        """Return places of so many texts, drawn by lot."""
        return [chance.randrange(len(self.texts)) for _ in range(count)]

    def ask(
        self, http: httpx2.Client, model: str, places: Sequence[int], *, raw: bool = False
    ) -> httpx2.Response:
        """Have the texts at these places embedded; the answer as JSON, or as raw floats."""
        headers = {"Accept": "application/octet-stream"} if raw else {}
        body = {"model": model, "texts": [self.texts[place] for place in places]}
        return http.post("/embed", json=body, headers=headers)

    def check(self, answer: httpx2.Response, model: str, places: Sequence[int]) -> float:
        """Return how alike vectors and known ones are at worst.

        Raises:
            AssertionError: not a good answer, not by that model, or other vectors.
        """
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text[:200]}"
        by = answer.headers["X-Emberd-Model"]
        assert by == model, f"{by} answered for {model}"
        if answer.headers["Content-Type"] == "application/octet-stream":
            found = np.frombuffer(answer.content, "<f4").reshape(len(places), -1)
        else:
            found = np.array(answer.json()["embeddings"], np.float32)
        expected = self._vectors[model][places]
        assert found.shape == expected.shape, f"{found.shape} vectors for {expected.shape}"
        cosines = (found * expected).sum(axis=1)  # all are of length 1
        lowest = float(cosines.min())
        assert ((cosines > SAME) & (cosines < 1 / SAME)).all(), f"{model}: cosine {lowest:.4f}"
        return lowest
