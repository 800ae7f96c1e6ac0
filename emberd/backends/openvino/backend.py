"""Runs encoders on x86 and Arm processors with OpenVINO."""

import ctypes
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from emberd.backends import shapes
from emberd.backends.architectures.base import Architecture
from emberd.backends.architectures.native import NATIVE, read_architecture
from emberd.backends.base import MODEL_FILES, Kind, LoadRequest, TokenIds
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.openvino.cache import Cache, CachedModel
from emberd.backends.openvino.processor import bf16_is_faster, uses_amx
from emberd.backends.openvino.runtime import (
    DEVICE,
    capabilities,
    choose_compute,
    cores_of,
    make_core,
    settings,
)
from emberd.backends.openvino.streams import Streams, streams_for
from emberd.backends.rows import Rows
from emberd.errors import BackendBrokenError
from emberd.processor import processor
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from openvino import CompiledModel, Core


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
        dimensions = checkpoint.dimensions(architecture.hidden_size)
        core = make_core()
        compute = choose_compute(
            request, able=capabilities(core), bf16_is_faster=bf16_is_faster(processor())
        )
        config = settings(compute, request.threads)
        cache = Cache(core, request, config)
        kept = (cache.file,)
        cached = cache.load()
        if cached:
            streams = _streams(core, request, compute, cached.model, cached)
            return OpenVINOEncoder(
                architecture, request, streams, cached, dimensions, compute, kept
            )
        compiled = _compile(core, config, checkpoint, architecture, request)
        cache.store(compiled)
        # Use the file just written: unlike the model in memory, it does not hold on to the
        # weights that it was compiled from.
        cached = cache.load()
        model = cached.model if cached else _apart(core, config, compiled)
        streams = _streams(core, request, compute, model, cached)
        encoder = OpenVINOEncoder(architecture, request, streams, cached, dimensions, compute, kept)
        del checkpoint, compiled, model
        _return_freed_memory()
        return encoder


class OpenVINOEncoder:
    """A compiled model; see `backends.base.Encoder`."""

    def __init__(
        self,
        architecture: Architecture,
        request: LoadRequest,
        streams: Streams,
        cached: CachedModel | None,
        dimensions: int,
        compute: str,
        kept: tuple[str, ...],
    ) -> None:
        self._architecture = architecture
        self._pooling = request.pooling
        self._dimensions = dimensions
        self._compute = compute
        self._run_on = streams
        self._cached = cached  # the model uses its pages
        self._few_lengths = uses_amx(compute)
        self.kept = kept
        self.streams = streams.count
        self.skips = True
        self.packs = True

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        return self._dimensions

    @property
    def compute(self) -> str:
        """The arithmetic in use: `f32`, `bf16` or `f16`."""
        return self._compute

    def encode(self, *arrays: TokenIds) -> Matrix:
        """Encode beside other batches; see `backends.base.Encoder.encode`."""
        return self._run_on.run(self._inputs(arrays))

    def encode_alone(self, *arrays: TokenIds) -> Matrix:
        """Encode with all cores; see `backends.base.Encoder`."""
        return self._run_on.run_alone(self._inputs(arrays))

    def _inputs(self, arrays: Sequence[TokenIds]) -> list[TokenIds]:
        self._architecture.check(arrays[0])
        if self._few_lengths:
            arrays = shapes.pad_tokens(*arrays, max_tokens=self._architecture.max_tokens)
        padding_id = self._architecture.padding_id
        return Rows.of(*arrays, pooling=self._pooling, padding_id=padding_id).inputs()

    def audit(self) -> str | None:
        """See `backends.base.Encoder`."""
        return self._cached.audit() if self._cached else None


def _streams(
    core: "Core",
    request: LoadRequest,
    compute: str,
    model: "CompiledModel",
    cached: CachedModel | None,
) -> Streams:
    """Return the streams of a model that was compiled with one, for as many as the request asks."""
    cores = cores_of(model)
    count = min(request.streams, cores) or streams_for(cores, with_amx=uses_amx(compute))
    config = settings(compute, cores, streams=count)

    def divide() -> "CompiledModel":
        if cached:
            return cached.again(core, config)
        return core.import_model(model.export_model(), DEVICE, config)

    return Streams(model, count, divide, cached.release_pages if cached else lambda: None)


def _compile(
    core: "Core",
    config: dict[str, Any],
    checkpoint: Checkpoint,
    architecture: Architecture,
    request: LoadRequest,
) -> "CompiledModel":
    # Imported here because it imports the library, and a start from the cache does not need it.
    from emberd.backends.openvino.model import build

    model = build(architecture, checkpoint)
    try:
        return core.compile_model(model, DEVICE, config)
    except RuntimeError as error:
        raise BackendBrokenError(f"OpenVINO cannot compile {request.folder}: {error}.") from error


def _apart(core: "Core", config: dict[str, Any], compiled: "CompiledModel") -> "CompiledModel":
    """Return a model that could not be cached, detached from the mapped weights.

    Otherwise it would compute with whatever is later written into their file.
    """
    try:
        return core.import_model(compiled.export_model(), DEVICE, config)
    except RuntimeError:  # the engine cannot export here
        return compiled


def _return_freed_memory() -> None:
    """Return memory that building the graph took and that glibc keeps for later."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no malloc_trim
            ctypes.CDLL(None).malloc_trim(0)
