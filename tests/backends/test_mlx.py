"""MLX: quantized weights stay quantized, and it is not imported on machines without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from emberd.backends.base import Precision
from emberd.backends.mlx.backend import MLXBackend
from emberd.errors import ModelLoadError
from tests.backends.support import a_request, batch_of

mx = pytest.importorskip("mlx.core")

MIB = 2**20


@pytest.mark.skipif(mx.cuda.is_available(), reason="CUDA is slow with packed weights")
@pytest.mark.parametrize(("precision", "at_most_mib"), [("f32", 90), ("8bit", 26), ("4bit", 14)])
def test_a_quantized_model_takes_a_fraction_of_the_memory(
    minilm: Path, tmp_path: Path, precision: Precision, at_most_mib: int
) -> None:
    before = mx.get_active_memory()

    encoder = MLXBackend().load(a_request(minilm, tmp_path, precision=precision))

    assert encoder.dimensions == 384
    assert mx.get_active_memory() - before < at_most_mib * MIB


def test_batches_of_many_lengths_leave_no_memory_behind(tiny: Path, tmp_path: Path) -> None:
    encoder = MLXBackend().load(a_request(tiny, tmp_path))
    before = mx.get_active_memory() + mx.get_cache_memory()

    for length in range(1, 49):
        encoder.encode(*batch_of([1] * length, [2] * length))

    assert mx.get_active_memory() + mx.get_cache_memory() - before < MIB / 10


def test_damaged_weights_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(ModelLoadError, match=r"model\.safetensors cannot be read"):
        MLXBackend().load(a_request(tiny, tmp_path))


@pytest.mark.skipif(
    sys.platform != "linux" or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists(),
    reason="here may be a GPU",
)
def test_without_a_gpu_mlx_is_not_even_imported() -> None:
    code = (
        "import sys; from emberd.backends import plugins; assert plugins.resolve('auto') =="
        " 'openvino'; assert not {'mlx', 'openvino', 'importlib.metadata'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
