"""Checkpoints at the sizes of real models, here with fewer layers and words, run."""

from pathlib import Path

import checkpoints
import load_report
import numpy as np
import pytest
from checkpoints import Sizes, Stored
from safetensors.numpy import load_file

from emberd.backends.openvino.backend import OpenVINOBackend
from tests.backends.support import a_request, batch_of
from tests.cosines import cosines

LAYERS = ("num_hidden_layers", "num_layers", "n_layer")
MODELS = {
    "bert": checkpoints.MINILM,
    "mpnet": checkpoints.MPNET,
    "xlm-roberta": checkpoints.XLM_ROBERTA_LARGE,
    "nomic_bert": checkpoints.NOMIC_BERT,
    "modernbert": checkpoints.MODERNBERT_BASE,
    "t5": checkpoints.T5_BASE,
    "qwen3": checkpoints.QWEN3_0_6B,
    "gemma3_text": checkpoints.GEMMA_300M,
}


def small(sizes: Sizes) -> Sizes:
    return sizes | {"vocab_size": 500} | {key: 1 for key in LAYERS if key in sizes}


@pytest.mark.parametrize("name", MODELS)
def test_each_model_runs(name: str, tmp_path: Path) -> None:
    sizes = small(MODELS[name])
    folder = checkpoints.write(sizes, tmp_path / "model")

    encoder = OpenVINOBackend().load(a_request(folder, tmp_path / "cache"))

    vectors = encoder.encode(*batch_of([5, 6, 7, 8], [9, 10]))
    assert np.isfinite(vectors).all()
    assert cosines(vectors[:1], vectors[1:]).max() < 0.9
    tensors = load_file(folder / "model.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == checkpoints.count(sizes)


@pytest.mark.parametrize("stored", ["F32", "BF16"])
def test_numbers_are_stored_as_asked_and_aligned(stored: Stored, tmp_path: Path) -> None:
    sizes = small(checkpoints.QWEN3_0_6B)
    folder = checkpoints.write(sizes, tmp_path / "model", stored=stored)

    path = folder / "model.safetensors"
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    expected = checkpoints.count(sizes) * checkpoints.BYTES[stored]
    assert path.stat().st_size - start == expected
    assert start % 8 == 0


def test_a_table_of_loads_says_what_misses_its_goal() -> None:
    row = {
        "model": "a", "backend": "openvino", "compute": "f32", "weights_mib": 1000.0,
        "first_peak_mib": 1601, "again_peak_mib": 1600, "again_s": 1.5,
        "again_cpu_s": 1.2, "again_load": 3.04,
    }  # fmt: skip

    line = load_report.line_of(row)

    assert line == (
        "| a | openvino | f32 | 1,000 MiB | ≤ 1,600 MiB | **1,601 MiB** | 1,600 MiB |  |  |  |"
        " 1.50 s | ≤ 1.52 s | 1.20 s | 3.0 |"
    )
