"""Runs encoders on Apple silicon, or on NVIDIA GPUs, with MLX.

MLX's streams belong to threads, so an encoder is loaded, called and freed on a single one.
"""

import importlib
import importlib.util
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, get_args

import numpy as np

from emberd.backends import shapes
from emberd.backends.architectures.base import Architecture
from emberd.backends.architectures.native import NATIVE, read_architecture
from emberd.backends.base import MODEL_FILES, Compute, Kind, LoadRequest, Pooling, TokenIds
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.mapped import released_meanwhile
from emberd.backends.rows import Rows
from emberd.errors import BackendBrokenError
from emberd.installing import pip
from emberd.vectors import Matrix

if TYPE_CHECKING:
    import mlx.core as mx

    from emberd.backends.mlx.layers import Weights
    from emberd.backends.mlx.packed import Packed

    Model = Callable[[Packed], mx.array]
    """A batch -> its token vectors, `(B, T, D)`."""

    Pool = Callable[[Packed, mx.array], mx.array]
    """A batch and its token vectors -> the vectors of texts, `(N, D)` float32."""

_WARM_UP_TOKENS = 4
_CACHE_BYTES = 2**30
_ROW_TOKENS = 256  # on CUDA: one width for all but long texts
_BATCH_TOKENS = 32_768  # on CUDA: fewer leave an H100 idle
_COARSE_TOKENS = 1024  # on CUDA: longer rows are rounded up by less, for they are one text each
_WRAPPED = frozenset({"llama_bidirec"})
"""Architectures run with mlx-embeddings; a test compares each with Hugging Face's vectors."""


class MLXBackend:
    """Reads safetensors, and those quantized by MLX as they are."""

    files: ClassVar[tuple[str, ...]] = MODEL_FILES
    libraries: ClassVar[tuple[str, ...]] = ("mlx", "mlx-embeddings", "mlx-lm")
    architectures: ClassVar[frozenset[str]] = NATIVE | _WRAPPED
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))

    def devices(self) -> tuple[str, ...]:
        """Return `gpu` or `cpu`; see `backends.base.Backend`."""
        try:
            import mlx.core as mx
        except (ImportError, OSError) as error:
            raise BackendBrokenError(
                f"MLX cannot be imported: {error}.",
                hint=f"Run `{pip('install', 'emberd[mlx]')}`.",
            ) from error
        return ("gpu",) if mx.default_device() == mx.Device(mx.gpu) else ("cpu",)

    def load(self, request: LoadRequest) -> "MLXEncoder":
        """Load the model; see `backends.base.Backend.load`."""
        from emberd.config import environment  # not needed where a start imports this module

        request.python_is_free()
        checkpoint = Checkpoint(request, applies_heads=True)
        architecture = read_architecture(checkpoint.config, backend="mlx", runs=self.architectures)
        dimensions = checkpoint.dimensions(architecture.hidden_size)
        if request.device:
            environment.show_only(request.device)
        try:
            import mlx.core as mx
        except ImportError as error:
            raise BackendBrokenError(
                f"MLX cannot be imported: {error}.",
                hint=f"Run `{pip('install', 'emberd[mlx]')}`.",
            ) from error
        from emberd.backends.mlx.layers import Weights, on_gpu

        compute = _choose_compute(
            request,
            on_gpu=on_gpu(),
            takes_f16=architecture.model_type in NATIVE and architecture.takes_f16,
        )
        weights = Weights(
            checkpoint, {"f32": mx.float32, "bf16": mx.bfloat16, "f16": mx.float16}[compute]
        )
        with released_meanwhile(checkpoint.release_pages):  # MLX copies what it is given
            return MLXEncoder(
                architecture,
                _model(architecture, checkpoint, weights),
                _pool(checkpoint, weights),
                pooling=request.pooling,
                dimensions=dimensions,
                compute=compute,
                takes_pairs=checkpoint.takes_pairs,
            )


class MLXEncoder:
    """A model in MLX's memory; see `backends.base.Encoder`.

    `few_shapes`: whether batches are rounded up to few shapes, as CUDA wants it (see `shapes`).
    """

    def __init__(
        self,
        architecture: Architecture,
        model: "Model",
        pool: "Pool",
        *,
        pooling: Pooling,
        dimensions: int,
        compute: str,
        takes_pairs: bool,
    ) -> None:
        from emberd.backends.mlx.layers import on_cuda
        from emberd.config import environment

        self._architecture = architecture
        self._model = model
        self._pool = pool
        self._pooling = pooling
        self._dimensions = dimensions
        self._compute = compute
        self.few_shapes = on_cuda()
        self.devices = environment.visible_gpus() if self.few_shapes else ()
        self.skips = True
        self.pools_chunks = pooling == "mean"
        if self.packs:
            self.row_tokens = _ROW_TOKENS
            self.batch_tokens = _BATCH_TOKENS
        self._bound_memory()
        self._warm_up(arrays=3 if takes_pairs else 2)

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        return self._dimensions

    @property
    def compute(self) -> str:
        """The arithmetic in use: `f32`, `bf16` or `f16`."""
        return self._compute

    @property
    def packs(self) -> bool:
        """Whether rows should hold several texts: where that makes shapes fewer."""
        return self.few_shapes and self._architecture.model_type in NATIVE

    def encode(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Matrix:
        """Encode; see `backends.base.Encoder.encode`."""
        return self.start(*arrays, chunks=chunks)()

    def start(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Callable[[], Matrix]:
        """Encode, but do not wait for the GPU; see `backends.base.Encoder.start`."""
        import mlx.core as mx

        from emberd.backends.mlx.packed import Packed

        self._architecture.check(arrays[0])
        given, width = arrays[0].shape
        if self.few_shapes:
            longest = self._architecture.max_tokens
            steps = 1 if self.packs and width <= _COARSE_TOKENS else 4
            arrays = shapes.pad(*arrays, max_tokens=longest, steps=steps)
        padding_id = self._architecture.padding_id
        rows = Rows.of(*arrays, pooling=self._pooling, padding_id=padding_id, chunks=chunks)
        texts = rows.texts - (len(arrays[0]) - given)  # each row that was added counts as one
        batch = Packed.of(rows, arrays[1], few_shapes=self.few_shapes)
        vectors = self._pool(batch, self._model(batch))
        mx.async_eval(vectors)  # type: ignore[no-untyped-call]

        def finish() -> Matrix:
            rows = np.array(vectors)[:texts]
            if not self.few_shapes:
                mx.clear_cache()
            return rows

        return finish

    def _bound_memory(self) -> None:
        """Limit the freed buffers that MLX keeps; by default they would fill nearly all memory.

        It keeps them by size. With few shapes a limit is enough, and on CUDA allocating buffers
        takes longer than running a large batch; otherwise they are freed after each batch.
        """
        import mlx.core as mx

        if self.few_shapes:
            mx.set_cache_limit(_CACHE_BYTES)

    def _warm_up(self, *, arrays: int) -> None:
        """Make MLX, which is lazy, load the weights and build its kernels now."""
        shape = (1, min(_WARM_UP_TOKENS, self._architecture.max_tokens))
        self.encode(*(np.full(shape, which == 1, np.int32) for which in range(arrays)))


def _model(architecture: Architecture, checkpoint: Checkpoint, weights: "Weights") -> "Model":
    # Imported here: these modules need MLX.
    if architecture.model_type in NATIVE:
        module = importlib.import_module(f"emberd.backends.mlx.{architecture.module}")
        model: Model = module.Encoder(architecture, weights)
        return model
    from emberd.backends.mlx.wrapped import WrappedModel

    return WrappedModel(architecture, checkpoint, weights)


def _pool(checkpoint: Checkpoint, weights: "Weights") -> "Pool":
    if checkpoint.sparse:
        from emberd.backends.mlx import sparse

        return sparse.make(checkpoint.sparse, weights)
    from emberd.backends.mlx.layers import Heads

    heads = Heads(checkpoint.heads, checkpoint)
    return lambda batch, tokens: heads(batch.pool(tokens))


def sees_gpu() -> bool:
    """Say whether MLX would run on a GPU here; MLX is not imported where there cannot be one."""
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


def _choose_compute(request: LoadRequest, *, on_gpu: bool, takes_f16: bool) -> Compute:
    """Resolve `auto`: 16 bits on a GPU; f32 on a CPU and for models of precision f32.

    With quantized weights, 16 bits means f16: bf16 has too few digits for their scales, which would
    then have to be float32, and so would the products. But activations in Gemma and other decoders
    are too large for f16 (EmbeddingGemma's model card), so those use bf16 all the same.
    """
    if request.compute != "auto":
        return request.compute
    if not on_gpu or request.precision == "f32":
        return "f32"
    return "f16" if takes_f16 and request.precision != "bf16" else "bf16"
