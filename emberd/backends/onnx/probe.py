"""Does a graph compute what it should? Asked once, before it is kept.

A short and a long text of random tokens are run alone and in a batch.
"""

from pathlib import Path
from typing import Final

import numpy as np
from openvino import CompiledModel

from emberd.backends.architectures.base import TokenLimits
from emberd.backends.base import Pooling, TokenIds
from emberd.backends.onnx.graph import EXPORT_AGAIN, TEXT_VECTORS
from emberd.backends.rows import Rows
from emberd.errors import ModelLoadError
from emberd.models.onnx_data import GET_AGAIN
from emberd.vectors import Matrix, finite_rows, lowest_cosine

_SHORT, _LONG = 5, 160  # tokens; in some models attention reaches only 64 tokens to each side
_ALIKE: Final = 0.9999  # cosine
_ALIKE_IN_16_BITS: Final = 0.99  # random tokens move further apart than real texts


class Probe:
    """Checks a model that was compiled from the ONNX file at `path`."""

    def __init__(self, path: Path, limits: TokenLimits, pooling: Pooling) -> None:
        draw = np.random.default_rng(7)
        self._path = path
        self._pooling = pooling
        self._texts = [
            draw.integers(0, limits.vocab_size, min(tokens, limits.max_tokens), np.int32)
            for tokens in (_SHORT, _LONG)
        ]

    def check(self, model: CompiledModel) -> None:
        """Check that vectors are usable, and that neighbours and padding do not change them.

        Raises:
            ModelLoadError: they are not, or do.
        """
        alone = self._alone(model)
        if not finite_rows(alone).all():
            raise ModelLoadError(
                f"{self._path} gives vectors that are zero or not numbers (NaN).", hint=GET_AGAIN
            )
        cosine = lowest_cosine(alone, self._run(model, self._texts))
        if cosine < _alike(model):
            raise ModelLoadError(
                f"{self._path} gives a text another vector in a batch than alone (cosine"
                f" {cosine:.4f}): it does not heed attention_mask, or it is quantized by what else"
                " is in the batch.",
                hint=EXPORT_AGAIN,
            )

    def compare(self, model: CompiledModel, own: CompiledModel) -> None:
        """Compare the vectors with those that the file itself gives for texts.

        Raises:
            ModelLoadError: they differ: the pooling or a step after it is not what it should be.
        """
        theirs = [
            own.create_infer_request().infer((text[None], np.ones_like(text)[None])).to_tuple()[0]
            for text in self._texts
        ]
        cosine = lowest_cosine(self._alone(model), np.concatenate(theirs))
        if cosine < _alike(model):
            raise ModelLoadError(
                f"{self._path} has vectors of texts of its own ({TEXT_VECTORS}), and pooling"
                f" {self._pooling} gives others (cosine {cosine:.4f}).",
                hint="Correct the entry's `pooling`. If the model has Dense layers after it, get"
                " modules.json and their folders, too.",
            )

    def _alone(self, model: CompiledModel) -> Matrix:
        return np.concatenate([self._run(model, [text]) for text in self._texts])

    def _run(self, model: CompiledModel, texts: list[TokenIds]) -> Matrix:
        token_ids = np.zeros((len(texts), max(map(len, texts))), np.int32)
        mask = np.zeros_like(token_ids)
        for row, text in enumerate(texts):
            token_ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        rows = Rows.of(token_ids, mask, pooling=self._pooling, padding_id=None)
        inputs = (rows.token_ids, rows.segments, rows.places, rows.starts)
        vectors: Matrix = model.create_infer_request().infer(inputs).to_tuple()[0]
        return vectors


def _alike(model: CompiledModel) -> float:
    """Return how near two vectors of a text must be, in the arithmetic of this model."""
    in_f32 = model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    return _ALIKE if in_f32 else _ALIKE_IN_16_BITS
