"""Which model made which rows, judged by vectors alone; see `test_check.py` for real models."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from emberd.dtypes import Dtype
from emberd.errors import QueueFullError
from emberd.migrate.candidates import Candidates, Verdict
from emberd.migrate.embedding import Embedded
from emberd.migrate.turns import IN_FLIGHT
from emberd.registry.spec import InputType, ModelSpec, Source
from emberd.stores.base import Row
from emberd.vectors import Matrix

ROWS = 20
DEFAULT, OTHER = "default", "other"
DIMENSIONS = 16
CHANCE = np.random.default_rng(3)
VECTORS = {
    name: CHANCE.standard_normal((ROWS, DIMENSIONS)).astype("<f4") for name in (DEFAULT, OTHER)
}
SPECS = {
    name: ModelSpec(
        name=name, sources=(Source(hf=f"me/{name}"),), dimensions=DIMENSIONS, pooling="mean"
    )
    for name in (DEFAULT, OTHER)
}
TEXTS = [f"text {at}" for at in range(ROWS)]


class FakeEmbedder:
    """Gives the vectors that it was made with, by model and text."""

    at_once = IN_FLIGHT

    def __init__(self, vectors: Mapping[str, Matrix]) -> None:
        self._vectors = vectors
        self.released: list[str] = []

    def submit(
        self,
        texts: Sequence[str],
        *,
        model: str,
        dimensions: int | None = None,
        input_type: InputType | None = None,
        fingerprint: str | None = None,
        dtype: Dtype = "float",
    ) -> "Future[Embedded]":
        """See `Embedder`."""
        assert dtype == "float"
        answer: Future[Embedded] = Future()
        if model in self._vectors:
            rows = self._vectors[model][[TEXTS.index(text) for text in texts]]
            answer.set_result(Embedded(rows, f"fingerprint of {model}"))
        else:
            answer.set_exception(QueueFullError("It is busy."))
        return answer

    def release(self, model: str) -> None:
        """See `Embedder`."""
        self.released.append(model)


def judged(made_by: Mapping[str, int]) -> Candidates:
    """Compare a store of which so many rows were made by each model; "": by none."""
    rows: list[Row] = []
    for model, count in made_by.items():
        for _ in range(count):
            at = len(rows)
            vector = (
                VECTORS[model][at] if model else CHANCE.standard_normal(DIMENSIONS).astype("<f4")
            )
            rows.append(Row(at, TEXTS[at], vector.tobytes()))
    candidates, embedder = Candidates(rows, DIMENSIONS, None), FakeEmbedder(VECTORS)
    for name in (DEFAULT, OTHER):
        candidates.add(SPECS[name], embedder, keep=name == DEFAULT)
    assert embedder.released == [OTHER]  # the default is not unloaded
    return candidates


@pytest.mark.parametrize(
    ("made_by", "verdict", "model"),
    [
        ({DEFAULT: 20}, "compatible", DEFAULT),
        ({DEFAULT: 18, "": 2}, "compatible", DEFAULT),  # a few that somebody spoilt
        ({OTHER: 20}, "re-embed", OTHER),
        ({OTHER: 18, "": 2}, "re-embed", OTHER),
        ({DEFAULT: 12, OTHER: 8}, "mixed", DEFAULT),
        ({OTHER: 19, DEFAULT: 1}, "mixed", OTHER),
        ({DEFAULT: 15, "": 5}, "mixed", DEFAULT),
        ({DEFAULT: 3, "": 17}, "mixed", DEFAULT),
        ({DEFAULT: 2, "": 18}, "unknown", None),  # a few that came out the same
        ({"": 20}, "unknown", None),
    ],
)
def test_the_verdict_is_by_the_share_of_rows_that_a_model_gives_again(
    made_by: dict[str, int], verdict: Verdict, model: str | None
) -> None:
    candidates = judged(made_by)

    assert candidates.verdict(DEFAULT) == (verdict, model)
    assert {name: len(keys) for name, keys in candidates.made_by(DEFAULT).items()} == made_by


def test_another_candidate_that_cannot_embed_is_named_with_its_error() -> None:
    row = Row(0, TEXTS[0], VECTORS[DEFAULT][0].tobytes())
    candidates, embedder = Candidates([row], DIMENSIONS, None), FakeEmbedder({})

    candidates.add(SPECS[OTHER], embedder, keep=False)
    with pytest.raises(QueueFullError):
        candidates.add(SPECS[DEFAULT], embedder, keep=True)

    assert [(each.model, each.error) for each in candidates.found] == [(OTHER, "It is busy.")]
    assert candidates.verdict(DEFAULT) == ("unknown", None)
