"""What OpenVINO makes of our graphs: the operations that it is known to do at once."""

from pathlib import Path

import pytest

from emberd.backends.architectures.native import read_architecture
from emberd.backends.base import LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.config import ModelConfig
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.graph import Weights
from emberd.backends.openvino.model import build
from emberd.backends.openvino.runtime import DEVICE, make_core, settings
from tests.backends.references import TINY, stated
from tests.backends.support import a_request


def operations(request: LoadRequest) -> list[str]:
    """Return the kinds of operations that the compiled model has."""
    checkpoint = Checkpoint(request, applies_heads=True)
    architecture = read_architecture(
        ModelConfig(request.folder / "config.json"),
        backend="openvino",
        runs=OpenVINOBackend.architectures,
    )
    weights = Weights(checkpoint, compute="f32", scratch=request.cache)
    model = build(architecture, weights)
    compiled = make_core().compile_model(model, DEVICE, settings("f32", 1))
    return [
        node.get_rt_info()["layerType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    ]


@pytest.mark.parametrize("name", ["nomic_bert", "gte", "modernbert", "qwen3", "gemma3_text"])
def test_queries_and_keys_are_turned_in_one_operation(name: str, tmp_path: Path) -> None:
    request = a_request(TINY / name, tmp_path / "cache", pooling=stated(name), compute="f32")

    found = operations(request)

    assert found.count("RoPE") == 2 * 2  # in two layers
