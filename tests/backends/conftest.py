"""Real MiniLM from its Python package, a quantized conversion, and its expected vectors."""

import importlib.metadata
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.base import Backend
from emberd.backends.tensors import open_tensors
from emberd.backends.tiny_bert import tiny_bert
from emberd.vectors import Matrix

REFERENCE = Path(__file__).parents[1] / "reference"
EXAMPLE = Path(__file__).parents[2] / "examples" / "backend-plugin"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of all kinds and lengths."""
    sentences = json.loads((REFERENCE / "sentences.json").read_text(encoding="utf-8"))
    return [sentence["text"] for sentence in sentences]


@pytest.fixture(scope="session")
def reference() -> Matrix:
    """What sentence-transformers itself makes of `texts`."""
    vectors: Matrix = np.load(REFERENCE / "minilm.npy")
    return vectors


@pytest.fixture(scope="session")
def packed_minilm(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM as the repositories of mlx-community have it: float16, then packed to 4 bits."""
    import mlx.core as mx

    folder = tmp_path_factory.mktemp("packed")
    shutil.copy(minilm / "tokenizer.json", folder)
    config = json.loads((minilm / "config.json").read_text())
    config["quantization"] = {"group_size": 64, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    arrays = {}
    for name, tensor in open_tensors(minilm / "model.safetensors").items():
        if name == "embeddings.position_ids":
            continue
        values = mx.array(tensor.floats()).astype(mx.float16)
        if values.ndim == 2:
            layer = name.removesuffix(".weight")
            values, arrays[f"{layer}.scales"], arrays[f"{layer}.biases"] = mx.quantize(
                values, group_size=64, bits=4
            )
        arrays[name] = values
    mx.save_safetensors(str(folder / "model.safetensors"), arrays, metadata={"format": "mlx"})
    return folder


@pytest.fixture(scope="session")
def numpy_backend() -> Backend:
    """The example plugin, which is an independent arithmetic; here it is not installed."""
    spec = importlib.util.spec_from_file_location("emberd_numpy", EXAMPLE / "emberd_numpy.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    backend: Backend = module.NumpyBackend()
    return backend


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A small BERT of random weights, for a test to spoil."""
    folder = tmp_path / "tiny"
    tiny_bert(folder)
    return folder
