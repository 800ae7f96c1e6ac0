"""Reads a model folder, gives every tensor its canonical name, and checks it against its entry.

The folder has the layout of a Hub repository. Its JSON files are read at once; its weights are
opened when the first of them is needed, so that a backend with a cache never touches them.
"""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from emberd.backends.architectures.base import Architecture
from emberd.backends.architectures.native import class_of, onnx_hint
from emberd.backends.base import LoadRequest, Precision, TokenIds
from emberd.backends.config import ModelConfig, is_file_name
from emberd.backends.mapped import release
from emberd.backends.modules import Head, check_pooling, expect_no_steps, read_heads
from emberd.backends.quantization import (
    GROUP_SIZE,
    QuantizedMatrix,
    bf16_of,
    dequantize,
    quantize,
    round_to_bf16,
)
from emberd.backends.sparse import MaskedLM, SparseHead, TokenWeights
from emberd.backends.tensors import Halves, Tensor, open_tensors
from emberd.errors import ModelLoadError
from emberd.files import is_file
from emberd.models.json_files import read_object
from emberd.models.splade import TOKEN_WEIGHTS, has_token_weights, read_splade
from emberd.vectors import Matrix

_BITS: dict[Precision, int] = {"4bit": 4, "8bit": 8}


class Checkpoint:
    """The configuration of a model and, on demand, its weights at the stated precision.

    Tensors have the names that their architecture gives them, without a prefix. `takes_pairs`:
    whether it is a re-ranker. `sparse`: what makes the vectors of a sparse model, otherwise None.
    """

    def __init__(
        self, request: LoadRequest, *, applies_heads: bool = False, encoder_elsewhere: bool = False
    ) -> None:
        """Read the JSON files; with `encoder_elsewhere`, the weights are those of the heads alone.

        Raises:
            ModelLoadError: they are missing or damaged, they contradict the request, or there are
                heads and the backend does not say that it `applies_heads`.
        """
        self.folder = request.folder
        self.precision = request.precision
        self.config = ModelConfig(request.folder / "config.json")
        self._checked: set[str] = set()
        self._quantized = _quantization(self.config, request.precision)
        self.takes_pairs = request.kind == "rerank"
        self._kind, self._pooling = request.kind, request.pooling
        self.sparse = self._sparse_head() if request.kind == "sparse" else None
        if not self.sparse:
            check_pooling(request.folder, request.pooling)
        self._encoder_elsewhere = encoder_elsewhere
        if request.kind == "embed" and self.heads and not applies_heads:
            raise ModelLoadError(
                f"{self.folder / 'modules.json'} lists Dense after Pooling, which the backend does"
                " not support."
            )

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The layers after pooling, in order: Dense, or for a re-ranker its classifier's."""
        if self._kind == "sparse":
            return ()
        if not self.takes_pairs:
            return read_heads(self.folder)
        classifier = class_of(self.config).read(self.config).classifier(self.config, self._pooling)
        expect_no_steps(self.folder)
        return classifier

    def dimensions(self, hidden_size: int) -> int:
        """Return the length of the final vector, for `hidden_size` numbers after pooling."""
        if self.sparse:
            return self.sparse.vocab_size
        size = hidden_size
        for head in self.heads:
            if head.inputs != size:
                raise ModelLoadError(
                    f"{self.folder}: {head.name} expects {head.inputs} inputs, but gets {size};"
                    " its config.json and that of the model do not fit."
                )
            size = head.outputs
        return size

    def _sparse_head(self) -> SparseHead:
        architecture = class_of(self.config).read(self.config)
        if has_token_weights(self.folder):
            return architecture.token_weights(self.config)
        head = architecture.masked_lm(self.config)
        return replace(head, logs=read_splade(self.folder).logs)

    def has(self, name: str) -> bool:
        """Say whether the weights have a tensor of this name."""
        return name in self._tensors

    def release_pages(self) -> None:
        """Stop counting what was read of the weights' files as memory of this process."""
        opened: dict[str, Tensor] = vars(self).get("_tensors", {})  # called beside who opens them
        for pages in {tensor.pages for tensor in opened.values()}:
            release(pages)

    def vector(self, name: str, length: int) -> Matrix:
        """Return a bias, or a scale of a layer norm: `(length,)`, float32."""
        return self._floats(name, (length,))

    def integers(self, name: str, length: int, *, below: int) -> TokenIds:
        """Return row numbers of a table that has `below` rows: `(length,)`, int32."""
        self._expect_shape(name, (length,))
        values = self._tensor(name).integers()
        if values.min() < 0 or values.max() >= below:
            raise ModelLoadError(
                f"{self._tensor(name).path}: {name} has numbers outside the table's {below} rows."
            )
        return values.astype(np.int32)

    def matrix(self, name: str, rows: int, columns: int) -> Matrix | QuantizedMatrix:
        """Return the weight of an embedding or a linear layer, `(rows, columns)`, as it is stored.

        That is quantized, or float32 that is still to be quantized if `bits_for(columns)` says so.
        """
        if self._tensor(name).dtype != "U32":
            return self._floats(name, (rows, columns))
        if self._quantized is None:
            raise ModelLoadError(
                f"{self._tensor(name).path} holds quantized weights, but {self.config.path} has no"
                " `quantization` that says how."
            )
        bits, group_size = self._quantized
        layer = name.removesuffix(".weight")
        groups = (rows, columns // group_size)
        self._expect_shape(name, (rows, columns * bits // 32))
        return QuantizedMatrix(
            words=self._tensor(name).words(),
            scales=self._floats(f"{layer}.scales", groups),
            biases=self._floats(f"{layer}.biases", groups),
            bits=bits,
            group_size=group_size,
        )

    def dense_matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return `matrix` as float32 at the stated precision, dequantized if need be."""
        stored = self.matrix(name, rows, columns)
        if isinstance(stored, QuantizedMatrix):
            return stored.dequantize()
        bits = self.bits_for(columns)
        return dequantize(*quantize(stored, bits)) if bits else stored

    def bf16_matrix(self, name: str, rows: int, columns: int) -> Halves | None:
        """Return the bits of `dense_matrix` in bfloat16; None if it has numbers that need more."""
        tensor = self._tensor(name)
        if tensor.dtype == "U32" or self.bits_for(columns):
            return None
        if tensor.dtype != "BF16" and self.precision != "bf16":
            return None
        self._expect_shape(name, (rows, columns))
        return tensor.halves() if tensor.dtype == "BF16" else bf16_of(tensor.floats())

    def bits_for(self, columns: int) -> int | None:
        """Return the bits to which a float32 matrix must still be quantized; None for not at all.

        In a quantized checkpoint, float matrices were left alone on purpose.
        """
        if self._quantized is not None or columns % GROUP_SIZE:
            return None
        return _BITS.get(self.precision)

    def _floats(self, name: str, shape: tuple[int, ...]) -> Matrix:
        self._expect_shape(name, shape)
        values = self._tensor(name).floats()
        return round_to_bf16(values) if self.precision == "bf16" else values

    def _expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise ModelLoadError(
                f"{tensor.path}: {name} has shape {tensor.shape}, but according to"
                f" {self.config.path} it should be {shape}."
            )

    def _tensor(self, name: str) -> Tensor:
        """Return a tensor, whose numbers are checked when it is asked for first."""
        try:
            tensor = self._tensors[name]
        except KeyError:
            raise ModelLoadError(f"The weights in {self.folder} have no {name}.") from None
        if name not in self._checked:
            tensor.check()
            self._checked.add(name)
        return tensor

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        architecture = class_of(self.config)
        tensors = {
            _canonical(name, architecture): tensor
            for path in ([] if self._encoder_elsewhere else _weight_files(self.folder))
            for name, tensor in open_tensors(path).items()
        }
        if not self.heads and "dense.0.weight" in tensors:
            raise ModelLoadError(
                f"The weights in {self.folder} include Dense heads, but there is no modules.json"
                " that lists them."
            )
        for index, head in enumerate(() if self.takes_pairs else self.heads):
            tensors |= self._tensors_of(head, converted_as=f"dense.{index}.", among=tensors)
        return tensors | self._tensors_of_sparse(tensors)

    def _tensors_of_sparse(self, among: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of each token's own weight; check that there is another head."""
        if isinstance(self.sparse, TokenWeights):
            found = open_tensors(self.folder / TOKEN_WEIGHTS)
            return {f"{self.sparse.name}.{name}": tensor for name, tensor in found.items()}
        if isinstance(self.sparse, MaskedLM) and f"{self.sparse.dense}.weight" not in among:
            raise ModelLoadError(
                f"The weights in {self.folder} have no {self.sparse.dense}.weight: there is no"
                " masked language model's head, so the model is not a sparse one.",
                hint="Choose another `kind`. BGE-M3 becomes one with its sparse_linear.pt in that"
                f" folder, converted to {TOKEN_WEIGHTS} (docs/configuration.md).",
            )
        return {}

    def _tensors_of(
        self, head: Head, *, converted_as: str, among: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return the weights of a head: from its own file, or from `among` those of the encoder.

        The latter is where mlx-embeddings puts them when it converts a model.
        """
        found = {name: tensor for name, tensor in among.items() if name.startswith(converted_as)}
        if found:
            return {name.replace(converted_as, f"{head.name}."): found[name] for name in found}
        step = head.name.removesuffix(".linear")
        return {
            f"{step}.{name}": tensor
            for path in _weight_files(self.folder / step)
            for name, tensor in open_tensors(path).items()
        }


def _canonical(name: str, architecture: type[Architecture]) -> str:
    """Return the architecture's name for a tensor, whatever the checkpoint calls it."""
    for prefix in architecture.prefixes:
        name = name.removeprefix(prefix)
    for other, ours in architecture.other_names.items():
        name = name.replace(other, ours)
    return name


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files: one, or several shards."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if is_file(single):
        return [single]
    if is_file(index):
        shards = read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(is_file_name(name) for name in shards.values()):
            raise ModelLoadError(f"{index} is damaged: its `weight_map` does not name files.")
        return [folder / name for name in sorted(set(shards.values()))]
    pickles = [path.name for path in sorted(folder.glob("*.bin"))]
    if pickles:
        raise ModelLoadError(
            f"{folder} has no model.safetensors, only {', '.join(pickles)}.",
            hint="Loading a pickle can run any code, so emberd reads only safetensors. Choose a"
            f" revision or a conversion of the model that has them. {onnx_hint(folder)}",
        )
    raise ModelLoadError(f"{single} is missing.", hint=onnx_hint(folder))


def _quantization(config: ModelConfig, precision: Precision) -> tuple[int, int] | None:
    """Return bits and group size of a checkpoint quantized by MLX; None if it is not quantized."""
    stated = config.get("quantization")
    if stated is None:
        return None
    try:
        bits, group_size = int(stated["bits"]), int(stated["group_size"])
        mode = str(stated.get("mode", "affine"))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise ModelLoadError(f"{config.path}: `quantization` cannot be read: {stated!r}.") from None
    if mode != "affine" or group_size < 1:
        raise ModelLoadError(
            f"{config.path}: weights are quantized in mode {mode!r} in groups of {group_size};"
            " only MLX's affine mode is supported."
        )
    if bits != _BITS.get(precision):
        raise ModelLoadError(
            f"{config.path} says {bits}-bit weights, but the registry says precision {precision}.",
            hint=f"Set `precision: {bits}bit`, or use a source with full-precision weights.",
        )
    return bits, group_size
