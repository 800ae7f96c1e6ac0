"""From a graph to a model that runs: compiled once for each machine, then taken from the cache."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from emberd import freed
from emberd.backends.base import LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.mapped import released_meanwhile
from emberd.backends.openvino.cache import Cache, CachedModel, exported
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
from emberd.errors import BackendBrokenError
from emberd.processor import processor

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, Model

    from emberd.backends.openvino.graph import Weights

    Compile = Callable[[Model], CompiledModel]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled model; it uses the pages of the `cached` file, if there is one.

    `kept` names the file that the next load looks for, `dimensions` is the length of vectors, and
    `compute` the arithmetic.
    """

    streams: Streams
    cached: CachedModel | None
    kept: tuple[str, ...]
    dimensions: int
    compute: str


def load(
    request: LoadRequest,
    checkpoint: Checkpoint,
    build: "Callable[[Core, Weights], Model]",
    check: "Callable[[CompiledModel, Compile], None]" = lambda model, compile_other: None,
) -> Compiled:
    """Take the model from the request's cache; if it is not there, build, compile and check it.

    Args:
        request: the cache, the arithmetic, and how many threads and streams.
        checkpoint: whatever has weights for the graph.
        build: returns the graph; what is in the cache is never built.
        check: raises what is wrong with the compiled model, which then is not cached; it may
            compile other graphs in the same way.

    Raises:
        BackendBrokenError: OpenVINO cannot be used, or cannot compile the graph.
    """
    core = make_core()
    compute = choose_compute(
        request, able=capabilities(core), bf16_is_faster=bf16_is_faster(processor())
    )
    config = settings(compute, request.threads)
    cache = Cache(core, request, config)
    cached = cache.load()
    if cached:
        streams = _streams(core, request, compute, cached.model, cached)
        return Compiled(streams, cached, (cache.file,), _dimensions(cached.model), compute)
    # Imported here because it imports the library, and a start from the cache does not need it.
    from emberd.backends.openvino.graph import Weights

    weights = Weights(checkpoint, compute=compute, scratch=request.cache)
    compile_graph = partial(_compile, core, config, weights)
    with released_meanwhile(weights.release_pages):
        compiled: CompiledModel | None = compile_graph(build(core, weights))
        assert compiled
        check(compiled, compile_graph)
        stored = cache.store(compiled)
    if stored:
        # Use the file just written: unlike the model in memory, it does not hold on to the weights
        # that it was compiled from. Both at once could be too much.
        compiled = None
        freed.give_back()
        cached = cache.load()
    if cached:
        model = cached.model
    else:
        model = _apart(core, config, compiled or compile_graph(build(core, weights)))
    streams = _streams(core, request, compute, model, cached)
    ready = Compiled(streams, cached, (cache.file,), _dimensions(model), compute)
    del compiled, model
    freed.give_back()
    return ready


def _dimensions(model: "CompiledModel") -> int:
    return int(model.output(0).get_partial_shape()[1].get_length())


def _streams(
    core: "Core",
    request: LoadRequest,
    compute: str,
    model: "CompiledModel",
    cached: CachedModel | None,
) -> Streams:
    """Return the streams of a model that was compiled with one, for as many as the request asks."""
    cores = cores_of(model)
    size = len(cached.pages) if cached else 0
    count = min(request.streams, cores) or streams_for(cores, size, with_amx=uses_amx(compute))
    config = settings(compute, cores, streams=count)

    def divide() -> "CompiledModel":
        if cached:
            return cached.again(core, config)
        return core.import_model(exported(model), DEVICE, config)

    return Streams(model, count, divide, cached.release_pages if cached else lambda: None)


def _compile(
    core: "Core", config: dict[str, Any], weights: "Weights", model: "Model"
) -> "CompiledModel":
    try:
        compiled = core.compile_model(model, DEVICE, config)
    except RuntimeError as error:
        raise BackendBrokenError(f"OpenVINO cannot compile {weights.folder}: {error}.") from error
    compiled.weights = weights  # they live as long as it does
    return compiled


def _apart(core: "Core", config: dict[str, Any], compiled: "CompiledModel") -> "CompiledModel":
    """Return a model that could not be cached, detached from the mapped weights.

    Otherwise it would compute with whatever is later written into their file. Raises MemoryError.
    """
    try:
        return core.import_model(exported(compiled), DEVICE, config)
    except RuntimeError:  # the engine cannot export here
        return compiled
