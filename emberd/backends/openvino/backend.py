"""Runs encoders on x86 and Arm processors with OpenVINO."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, get_args

from emberd.backends import shapes
from emberd.backends.architectures.base import TokenLimits
from emberd.backends.architectures.native import NATIVE, read_architecture
from emberd.backends.base import MODEL_FILES, Kind, LoadRequest, Pooling, TokenIds
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.openvino import compiled
from emberd.backends.openvino.compiled import Compiled
from emberd.backends.openvino.processor import uses_amx
from emberd.backends.openvino.runtime import DEVICE, capabilities, make_core
from emberd.backends.rows import Rows
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from openvino import Core, Model

    from emberd.backends.openvino.graph import Weights


class OpenVINOBackend:
    """Builds a graph from safetensors, compiles it once per machine, and caches the result."""

    files: ClassVar[tuple[str, ...]] = MODEL_FILES
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)
    architectures: ClassVar[frozenset[str]] = NATIVE
    kinds: ClassVar[frozenset[Kind]] = frozenset(get_args(Kind))

    def devices(self) -> tuple[str, ...]:
        """Return `cpu`; see `backends.base.Backend`."""
        capabilities(make_core())
        return (DEVICE.lower(),)

    def load(self, request: LoadRequest) -> "OpenVINOEncoder":
        """Load the model; see `backends.base.Backend.load`.

        If the cache has a compiled model, the weights are not opened.
        """
        checkpoint = Checkpoint(request, applies_heads=True)
        architecture = read_architecture(
            checkpoint.config, backend="openvino", runs=self.architectures
        )
        checkpoint.dimensions(architecture.hidden_size)

        def build(_: "Core", weights: "Weights") -> "Model":
            # Imported here because it imports the library, and a start from the cache does not
            # need it.
            from emberd.backends.openvino import model

            return model.build(architecture, weights)

        model = compiled.load(request, checkpoint, build)
        return OpenVINOEncoder(model, architecture, request.pooling)


class OpenVINOEncoder:
    """A compiled model; see `backends.base.Encoder`."""

    skips = True
    packs = True

    def __init__(self, model: Compiled, limits: TokenLimits, pooling: Pooling) -> None:
        self._limits = limits
        self._pooling = pooling
        self._dimensions = model.dimensions
        self._compute = model.compute
        self._run_on = model.streams
        self._cached = model.cached  # the model uses its pages
        self._few_lengths = uses_amx(model.compute)
        self.kept = model.kept
        self.streams = model.streams.count
        self.pools_chunks = pooling == "mean"

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        return self._dimensions

    @property
    def compute(self) -> str:
        """The arithmetic in use: `f32`, `bf16` or `f16`."""
        return self._compute

    def encode(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Matrix:
        """Encode beside other batches; see `backends.base.Encoder.encode`."""
        return self._run_on.run(self._inputs(arrays, chunks))

    def encode_alone(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Matrix:
        """Encode with all cores; see `backends.base.Encoder`."""
        return self._run_on.run_alone(self._inputs(arrays, chunks))

    def _inputs(self, arrays: Sequence[TokenIds], chunks: TokenIds | None) -> list[TokenIds]:
        self._limits.check(arrays[0])
        if self._few_lengths:
            arrays = shapes.pad_tokens(*arrays, max_tokens=self._limits.max_tokens)
        padding_id = self._limits.padding_id
        rows = Rows.of(*arrays, pooling=self._pooling, padding_id=padding_id, chunks=chunks)
        return self._given(rows)

    def _given(self, rows: Rows) -> list[TokenIds]:
        """Return what the graph takes of a batch, in its order."""
        return rows.inputs()

    def audit(self) -> str | None:
        """See `backends.base.Encoder`."""
        return self._cached.audit() if self._cached else None
