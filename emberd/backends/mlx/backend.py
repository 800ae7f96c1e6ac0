"""Run encoders on Apple silicon, or on NVIDIA's GPUs, with MLX.

MLX's streams belong to threads: an encoder is loaded, called and freed on one.
"""

import importlib.util
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emberd.backends.architecture import Bert, read_architecture
from emberd.backends.base import MODEL_FILES, Compute, LoadRequest, Pooling, TokenIds
from emberd.backends.checkpoint import Checkpoint
from emberd.errors import BackendBrokenError
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from emberd.backends.mlx.bert import BertModel

_WARM_UP_TOKENS = 4


class MLXBackend:
    """Reads safetensors, and MLX's own packed ones as they are."""

    files: ClassVar[tuple[str, ...]] = MODEL_FILES

    def load(self, request: LoadRequest) -> "MLXEncoder":
        """Load the model; see `backends.base.Backend.load`."""
        checkpoint = Checkpoint(request)
        bert = read_architecture(checkpoint.config, backend="mlx")
        try:
            import mlx.core as mx
        except ImportError as error:
            raise BackendBrokenError(
                f"MLX cannot be imported: {error}.", hint="Run `pip install 'emberd[mlx]'`."
            ) from error
        from emberd.backends.mlx.bert import BertModel
        from emberd.backends.mlx.layers import Weights

        compute = _choose_compute(request, on_gpu=mx.default_device() == mx.Device(mx.gpu))
        dtype = {"f32": mx.float32, "bf16": mx.bfloat16, "f16": mx.float16}[compute]
        model = BertModel(bert, Weights(checkpoint, dtype))
        return MLXEncoder(bert, compute, model, request.pooling)


class MLXEncoder:
    """A model in MLX's memory; see `backends.base.Encoder`."""

    def __init__(self, bert: Bert, compute: str, model: "BertModel", pooling: Pooling) -> None:
        self._bert = bert
        self._compute = compute
        self._model = model
        self._pooling = pooling
        self._warm_up()

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        return self._bert.hidden_size

    @property
    def compute(self) -> str:
        """The arithmetic in use: `f32`, `bf16` or `f16`."""
        return self._compute

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Encode; see `backends.base.Encoder.encode`."""
        import mlx.core as mx

        from emberd.backends.mlx.layers import pool

        self._bert.check(token_ids)
        kept = mx.array(mask)
        vectors = np.array(pool(self._model(mx.array(token_ids), kept), kept, self._pooling))
        # Freed buffers are kept by size, without a limit worth the name: with every new length
        # of a batch, memory would grow.
        mx.clear_cache()
        return vectors

    def _warm_up(self) -> None:
        """Make MLX, which puts work off, really load the weights and build its kernels."""
        length = min(_WARM_UP_TOKENS, self._bert.max_position_embeddings)
        token_ids = np.zeros((1, length), np.int32)
        self.encode(token_ids, np.ones_like(token_ids))


def sees_gpu() -> bool:
    """Say whether MLX would run on a GPU here, without importing MLX where there can be none."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    has_device = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()  # dxg: WSL
    if not has_device or importlib.util.find_spec("mlx") is None:
        return False
    try:
        import mlx.core as mx
    except ImportError:
        return False
    return mx.is_available(mx.gpu)


def _choose_compute(request: LoadRequest, *, on_gpu: bool) -> Compute:
    """Resolve `auto`: 16 bits on a GPU, but f32 for a model of precision f32, and on a CPU.

    With quantized weights that is f16: bf16 has too few digits for their scales, which then must
    be float32, and so the products, too.
    """
    if request.compute != "auto":
        return request.compute
    if not on_gpu or request.precision == "f32":
        return "f32"
    return "bf16" if request.precision == "bf16" else "f16"
