"""Runs the `onnx/model.onnx` of a repository, whatever its architecture: the file has the graph.

OpenVINO reads and runs it (decision 37). Where texts are cut, pooling, Dense heads and the length
of vectors are emberd's, as with every other backend.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from emberd.backends.architectures.base import TokenLimits
from emberd.backends.architectures.native import class_of
from emberd.backends.base import FILES_BESIDE_WEIGHTS, LoadRequest, TokenIds
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.openvino import compiled
from emberd.backends.openvino.backend import OpenVINOBackend, OpenVINOEncoder
from emberd.backends.rows import Rows
from emberd.errors import ModelLoadError
from emberd.models.local import ONNX_FILE
from emberd.registry.spec import MOST
from emberd.vectors import Matrix

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, Model

    from emberd.backends.openvino.compiled import Compile
    from emberd.backends.openvino.graph import Weights

LONG_TOKENS = 1024


class OnnxBackend:
    """Reads the file's graph, puts pooling and heads behind it, and caches what it compiles."""

    files: ClassVar[tuple[str, ...]] = (*FILES_BESIDE_WEIGHTS, f"{ONNX_FILE}*")
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)
    any_architecture: ClassVar[bool] = True

    def devices(self) -> tuple[str, ...]:
        """Return `cpu`; see `backends.base.Backend`."""
        return OpenVINOBackend().devices()

    def load(self, request: LoadRequest) -> "OnnxEncoder":
        """Load the model; see `backends.base.Backend.load`.

        If the cache has a compiled model, the ONNX file is not opened.
        """
        path = request.folder / ONNX_FILE
        checkpoint = Checkpoint(request, applies_heads=True, encoder_elsewhere=True)
        if request.precision != "f32":
            raise ModelLoadError(
                f"Backend onnx takes the weights as they are in {path}, and cannot round them to"
                f" {request.precision}.",
                hint="Write `precision: f32`.",
            )
        limits = TokenLimits(
            vocab_size=checkpoint.config.size("vocab_size"),
            max_tokens=class_of(checkpoint.config).positions(checkpoint.config) or MOST,
        )
        own: list[Model] = []  # vectors of texts, if the file gives them

        def build(core: "Core", weights: "Weights") -> "Model":
            # Imported here because it imports the library, and a start from the cache does not
            # need it.
            from emberd.backends.onnx import graph

            read = graph.read(core, path, checkpoint, weights, request.cache)
            own.extend([read.own] if read.own else [])
            return read.vectors

        def check(model: "CompiledModel", compile_graph: "Compile") -> None:
            from emberd.backends.onnx.probe import Probe

            probe = Probe(path, limits, request.pooling)
            probe.check(model)
            for each in own:
                probe.compare(model, compile_graph(each))

        return OnnxEncoder(
            compiled.load(request, checkpoint, build, check), limits, request.pooling
        )


class OnnxEncoder(OpenVINOEncoder):
    """A compiled model; see `backends.base.Encoder`. The masks of ONNX files know no rows of texts.

    The attention of some graphs takes memory by the square of a row's length. So no run takes more
    than one text of `LONG_TOKENS` does, but for a longer text, which runs alone.
    """

    packs = False

    def encode(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Matrix:
        """Encode beside other batches, if texts are short; see `backends.base.Encoder.encode`."""
        if arrays[0].shape[1] > LONG_TOKENS:
            return self.encode_alone(*arrays, chunks=chunks)
        run = super().encode
        return np.concatenate([run(*part, chunks=chunks) for part in parts(*arrays)])

    def encode_alone(self, *arrays: TokenIds, chunks: TokenIds | None = None) -> Matrix:
        """Encode with all cores, and give back what a long text took; see `encode`."""
        run = super().encode_alone
        vectors = [run(*part, chunks=chunks) for part in parts(*arrays)]
        if arrays[0].shape[1] > LONG_TOKENS:
            self._run_on.release_buffers()
        return np.concatenate(vectors)

    def _given(self, rows: Rows) -> list[TokenIds]:
        return [rows.token_ids, rows.segments, rows.places, rows.starts]


def parts(token_ids: TokenIds, mask: TokenIds) -> Iterator[tuple[TokenIds, TokenIds]]:
    """Divide a batch `(R, W)` into parts that are small enough, and no wider than their texts."""
    rows = max(1, LONG_TOKENS**2 // token_ids.shape[1] ** 2)
    for first in range(0, len(token_ids), rows):
        part = slice(first, first + rows)
        width = np.count_nonzero(mask[part], axis=1).max()
        yield token_ids[part, :width], mask[part, :width]
