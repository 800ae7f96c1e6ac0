"""BERT in plain NumPy, as a backend for emberd.

Source: arXiv:1810.04805, section 3, with the layers of 1706.03762.
Shapes in comments: B texts, T tokens, D hidden size, H heads, S head size.
"""

import math
from typing import ClassVar

import numpy as np

from emberd.backends.architectures.native import read_architecture
from emberd.backends.base import MODEL_FILES, LoadRequest, Pooling, TokenIds, mean_pool
from emberd.backends.checkpoint import Checkpoint
from emberd.errors import BackendBrokenError
from emberd.vectors import Matrix

_erf = np.vectorize(math.erf, otypes=[np.float32])


class NumpyBackend:
    """The class that the entry point names; created without arguments."""

    files: ClassVar[tuple[str, ...]] = MODEL_FILES
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def load(self, request: LoadRequest) -> "NumpyEncoder":
        """Read the whole model into memory. `Checkpoint` reports what is wrong with its files."""
        if request.compute not in ("auto", "f32"):
            raise BackendBrokenError(
                f"Backend numpy has no {request.compute} arithmetic.", hint="Set `compute: auto`."
            )
        return NumpyEncoder(Checkpoint(request), request.pooling)


class NumpyEncoder:
    """One BERT: its sizes, and its weights by name."""

    compute = "f32"

    def __init__(self, checkpoint: Checkpoint, pooling: Pooling) -> None:
        self._pooling = pooling
        self._sizes = read_architecture(checkpoint.config, backend="numpy")
        self._layers = [f"encoder.layer.{n}" for n in range(self._sizes.num_hidden_layers)]
        self._weights: dict[str, Matrix] = {}
        self._read(checkpoint)

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        return self._sizes.hidden_size

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Encode: both `(B, T)` int32 -> `(B, D)` float32."""
        self._sizes.check(token_ids)
        x = self._embed(token_ids)
        for layer in self._layers:
            attended = self._attend(x, mask, f"{layer}.attention")
            x = self._normalize(x + attended, f"{layer}.attention.output.LayerNorm")
            wide = _gelu(self._apply(x, f"{layer}.intermediate.dense"))
            narrow = self._apply(wide, f"{layer}.output.dense")
            x = self._normalize(x + narrow, f"{layer}.output.LayerNorm")
        if self._pooling == "mean":
            return mean_pool(x, mask)
        token = mask.sum(axis=1) - 1 if self._pooling == "last" else 0
        vectors: Matrix = x[np.arange(len(x)), token]
        return vectors

    def _embed(self, token_ids: TokenIds) -> Matrix:
        """Sum the vectors of token, position and segment 0: `(B, T)` -> `(B, T, D)`."""
        words, positions, segments = (
            self._weights[f"embeddings.{kind}_embeddings.weight"]
            for kind in ("word", "position", "token_type")
        )
        x: Matrix = words[token_ids] + positions[: token_ids.shape[1]] + segments[0]
        return self._normalize(x, "embeddings.LayerNorm")

    def _attend(self, x: Matrix, mask: TokenIds, name: str) -> Matrix:
        """Let each token attend to those of its text that `mask` keeps; `(B, T, D)` to the same."""
        query, key, value = (
            self._split(self._apply(x, f"{name}.self.{kind}")) for kind in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / math.sqrt(self._sizes.head_size)  # (B, H, T, T)
        scores = np.where(mask[:, None, None, :] != 0, scores, np.float32(-np.inf))
        shares = np.exp(scores - scores.max(axis=3, keepdims=True))
        shares /= shares.sum(axis=3, keepdims=True)
        together = (shares @ value).swapaxes(1, 2).reshape(x.shape)
        return self._apply(together, f"{name}.output.dense")

    def _split(self, x: Matrix) -> Matrix:
        """Give each head its part: `(B, T, D)` -> `(B, H, T, S)`."""
        return x.reshape(*x.shape[:2], self._sizes.num_attention_heads, -1).swapaxes(1, 2)

    def _apply(self, x: Matrix, name: str) -> Matrix:
        """Apply a linear layer: `(..., inputs)` -> `(..., outputs)`."""
        return x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]

    def _normalize(self, x: Matrix, name: str) -> Matrix:
        """Apply a layer norm over the last axis."""
        x = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((x * x).mean(axis=-1, keepdims=True) + self._sizes.layer_norm_eps)
        normal: Matrix = x / deviation
        return normal * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _read(self, checkpoint: Checkpoint) -> None:
        sizes = self._sizes
        size, wide = sizes.hidden_size, sizes.intermediate_size
        matrices = {
            "embeddings.word_embeddings": (sizes.vocab_size, size),
            "embeddings.position_embeddings": (sizes.max_position_embeddings, size),
            "embeddings.token_type_embeddings": (sizes.type_vocab_size, size),
        }
        norms = ["embeddings.LayerNorm"]
        for layer in self._layers:
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                matrices[f"{layer}.attention.{part}"] = (size, size)
            matrices[f"{layer}.intermediate.dense"] = (wide, size)
            matrices[f"{layer}.output.dense"] = (size, wide)
            norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in matrices.items():
            self._weights[f"{name}.weight"] = checkpoint.dense_matrix(f"{name}.weight", *shape)
            if not name.startswith("embeddings."):
                self._weights[f"{name}.bias"] = checkpoint.vector(f"{name}.bias", shape[0])
        for name in norms:
            for part in ("weight", "bias"):
                self._weights[f"{name}.{part}"] = checkpoint.vector(f"{name}.{part}", size)


def _gelu(x: Matrix) -> Matrix:
    """Return `x` times the normal distribution up to `x`. Source: arXiv:1606.08415."""
    result: Matrix = x * (1 + _erf(x / math.sqrt(2))) / 2
    return result
