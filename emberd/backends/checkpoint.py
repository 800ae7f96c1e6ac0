"""A model folder, read, and held against what the registry states of it.

The folder has the layout of a Hub repository. What it says in JSON is read at once; its weights
are opened when the first of them is asked for, so that a backend with a cache never touches them.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from emberd.backends.base import LoadRequest, Pooling, Precision
from emberd.backends.quantization import (
    GROUP_SIZE,
    Packed,
    dequantize,
    quantize,
    round_to_bf16,
)
from emberd.backends.tensors import Tensor, open_tensors
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix

_POOLING_NAMES = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "lasttoken": "last",
}
"""What `*_Pooling/config.json` calls the poolings that we know; it may name others."""

_RUNNABLE_MODULES = {"Transformer", "Pooling", "Normalize", "Dropout"}
_QUANTIZED_BITS: dict[Precision, int] = {"4bit": 4, "8bit": 8}


class Checkpoint:
    """The configuration of a model and, on demand, its weights at the stated precision.

    Names of tensors are canonical: as in Hugging Face's `BertModel`, without a prefix.
    """

    def __init__(self, request: LoadRequest) -> None:
        """Read the JSON files.

        Raises:
            ModelLoadError: they are missing or damaged, or they contradict the request.
        """
        self.folder = request.folder
        self.precision = request.precision
        self.config = Config(request.folder / "config.json")
        self._packing = _packing(self.config, request.precision)
        _check_pooling(request.folder, request.pooling)
        _check_modules(request.folder / "modules.json")

    def vector(self, name: str, length: int) -> Matrix:
        """Return a bias or a scale of a layer norm: `(length,)`, float32."""
        return self._floats(name, (length,))

    def matrix(self, name: str, rows: int, columns: int) -> Matrix | Packed:
        """Return the weight of an embedding or a linear layer, `(rows, columns)`, as it is stored.

        That is packed, or float32, which is still to be quantized if `bits_for(columns)` says so.
        """
        if self._tensor(name).dtype != "U32":
            return self._floats(name, (rows, columns))
        if self._packing is None:
            raise ModelLoadError(
                f"{self._tensor(name).path} holds packed weights, but {self.config.path} has no"
                " `quantization` that says how."
            )
        bits, group_size = self._packing
        layer = name.removesuffix(".weight")
        groups = (rows, columns // group_size)
        self._expect_shape(name, (rows, columns * bits // 32))
        return Packed(
            words=self._tensor(name).words(),
            scales=self._floats(f"{layer}.scales", groups),
            biases=self._floats(f"{layer}.biases", groups),
            bits=bits,
            group_size=group_size,
        )

    def dense_matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return `matrix` as float32 at the stated precision: what is quantized, dequantized."""
        stored = self.matrix(name, rows, columns)
        if isinstance(stored, Packed):
            return stored.dequantize()
        bits = self.bits_for(columns)
        return dequantize(*quantize(stored, bits)) if bits else stored

    def bits_for(self, columns: int) -> int | None:
        """Return to how many bits a float32 matrix is still to be quantized; None: it stays.

        In a packed checkpoint, what is not packed was left alone on purpose.
        """
        if self._packing is not None or columns % GROUP_SIZE:
            return None
        return _QUANTIZED_BITS.get(self.precision)

    def _floats(self, name: str, shape: tuple[int, ...]) -> Matrix:
        self._expect_shape(name, shape)
        values = self._tensor(name).floats()
        return round_to_bf16(values) if self.precision == "bf16" else values

    def _expect_shape(self, name: str, shape: tuple[int, ...]) -> None:
        tensor = self._tensor(name)
        if tensor.shape != shape:
            raise ModelLoadError(
                f"{tensor.path}: {name} has shape {tensor.shape}, but {self.config.path} makes"
                f" it {shape}."
            )

    def _tensor(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except KeyError:
            raise ModelLoadError(f"The weights in {self.folder} lack {name}.") from None

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return {
            _canonical(name): tensor
            for path in _weight_files(self.folder)
            for name, tensor in open_tensors(path).items()
        }


class Config:
    """`config.json`, with values of the type that is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values = _read_object(path)

    def size(self, key: str) -> int:
        """Return a whole number above zero, or raise `ModelLoadError`."""
        value = self._values.get(key)
        if isinstance(value, int) and value > 0:
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a whole number above zero.")

    def number(self, key: str, default: float) -> float:
        """Return a number, or raise `ModelLoadError`."""
        value = self._values.get(key, default)
        if isinstance(value, int | float):
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a number.")

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Return what is there."""
        return self._values.get(key, default)


def _canonical(name: str) -> str:
    """Undo what differs between checkpoints of one architecture.

    A model with a head prefixes its encoder; conversions from TensorFlow call a layer norm's
    scale and bias gamma and beta.
    """
    name = name.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files, one or several shards."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        shards = _read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(_is_file_name(name) for name in shards.values()):
            raise ModelLoadError(f"{index} is damaged: its `weight_map` does not name files.")
        return [folder / name for name in sorted(set(shards.values()))]
    pickles = [path.name for path in sorted(folder.glob("*.bin"))]
    if pickles:
        raise ModelLoadError(
            f"{folder} has no model.safetensors, only {', '.join(pickles)}.",
            hint="A pickle runs code when it is loaded, so only safetensors are. Choose a"
            " revision or a conversion of the model that has them.",
        )
    raise ModelLoadError(f"{single} is missing.")


def _is_file_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _packing(config: Config, precision: Precision) -> tuple[int, int] | None:
    """Return bits and group size of a checkpoint packed by MLX; None: it is not packed."""
    stated = config.get("quantization")
    if stated is None:
        return None
    try:
        bits, group_size = int(stated["bits"]), int(stated["group_size"])
        mode = str(stated.get("mode", "affine"))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelLoadError(f"{config.path}: cannot read `quantization` {stated!r}.") from None
    if mode != "affine" or group_size < 1:
        raise ModelLoadError(
            f"{config.path}: weights are packed in mode {mode!r} in groups of {group_size};"
            " only MLX's affine mode is known."
        )
    if bits != _QUANTIZED_BITS.get(precision):
        raise ModelLoadError(
            f"{config.path} says {bits}-bit weights, but the registry states precision"
            f" {precision}.",
            hint=f"State `precision: {bits}bit`, or name a source with full-precision weights.",
        )
    return bits, group_size


def _check_pooling(folder: Path, stated: Pooling) -> None:
    """Refuse a pooling that the checkpoint's own sentence-transformers files contradict."""
    for path in sorted(folder.glob("*_Pooling/config.json")):
        values = _read_object(path)
        flags = [key for key, value in values.items() if value is True]
        modes = {key.removeprefix("pooling_mode_") for key in flags if "pooling_mode_" in key}
        if isinstance(values.get("pooling_mode"), str):  # newer files name the one mode
            modes.add(values["pooling_mode"])
        found = {_POOLING_NAMES.get(mode, mode) for mode in modes}
        if found and found != {stated}:
            raise ModelLoadError(
                f"{path} says pooling {' + '.join(sorted(found))}, but the registry states"
                f" {stated}."
            )


def _check_modules(path: Path) -> None:
    """Refuse a sentence-transformers model with steps that nothing here would run."""
    if not path.exists():
        return
    modules = _read_json(path)
    try:
        types = {str(module["type"]) for module in modules}
    except (KeyError, TypeError):
        raise ModelLoadError(f"{path} is damaged: not a list of modules with types.") from None
    unknown = {kind.rpartition(".")[2] for kind in types} - _RUNNABLE_MODULES
    if unknown:
        raise ModelLoadError(
            f"{path} lists {', '.join(sorted(unknown))} after the encoder, which is not supported."
        )


def _read_object(path: Path) -> dict[str, Any]:
    values = _read_json(path)
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} is damaged: not a JSON object.")
    return values


def _read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise ModelLoadError(f"{path} cannot be read: {error}.") from error
