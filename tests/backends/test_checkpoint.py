"""Model folders: every layout that can be read, and every contradiction that is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from emberd.backends.architectures.native import read_architecture
from emberd.backends.base import Pooling, Precision
from emberd.backends.checkpoint import Checkpoint
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix
from tests.backends.support import a_request

QUERY = "encoder.layer.0.attention.self.query.weight"


def read(folder: Path, *, pooling: Pooling = "mean", precision: Precision = "f32") -> Checkpoint:
    return Checkpoint(a_request(folder, folder / "cache", pooling=pooling, precision=precision))


def query_of(folder: Path, precision: Precision = "f32") -> Matrix:
    return read(folder, precision=precision).dense_matrix(QUERY, 64, 64)


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def state_pooling(folder: Path, config: dict[str, object]) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


def test_shards_read_as_the_single_file_does(tiny: Path, tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    shutil.copy(tiny / "config.json", sharded)
    tensors = load_file(tiny / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2]}
    shards["model-00002-of-00002.safetensors"] = names[1::2]
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, sharded / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))

    for name, values in tensors.items():
        if values.ndim == 2:
            np.testing.assert_array_equal(read(sharded).dense_matrix(name, *values.shape), values)


def test_a_missing_shard_is_named(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()
    index = {"weight_map": {QUERY: "model-00001-of-00001.safetensors"}}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(ModelLoadError, match=r"model-00001-of-00001\.safetensors cannot be read"):
        query_of(tiny)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", 7])
def test_an_index_that_points_elsewhere_is_refused(tiny: Path, name: object) -> None:
    (tiny / "model.safetensors").unlink()
    index = tiny / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {QUERY: name}}))

    with pytest.raises(ModelLoadError, match=r"index\.json is damaged"):
        query_of(tiny)


def test_prefix_and_old_names_are_read_as_the_canonical_ones(tiny: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    expected = tensors["embeddings.LayerNorm.weight"]
    old = {
        f"bert.{name}".replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for name, value in tensors.items()
    }
    save_file(old, tiny / "model.safetensors")

    np.testing.assert_array_equal(read(tiny).vector("embeddings.LayerNorm.weight", 64), expected)


def test_pickled_weights_are_refused_with_a_hint(tiny: Path) -> None:
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")

    with pytest.raises(ModelLoadError, match=r"only pytorch_model\.bin") as caught:
        query_of(tiny)

    assert caught.value.hint is not None
    assert "safetensors" in caught.value.hint


def test_a_folder_without_weights_is_refused(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()

    with pytest.raises(ModelLoadError, match=r"model\.safetensors is missing"):
        query_of(tiny)


def test_a_missing_tensor_is_named(tiny: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"encoder\.layer\.9\.output\.dense\.weight"):
        read(tiny).dense_matrix("encoder.layer.9.output.dense.weight", 64, 128)


def test_a_tensor_of_another_shape_is_named(tiny: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"query\.weight has shape \(64, 64\).*\(64, 32\)"):
        read(tiny).dense_matrix(QUERY, 64, 32)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named(dtype: str, number: float, tiny: Path) -> None:
    values = np.full((64, 64), 65504, np.float32)  # the largest number of float16
    wide = values.astype({"F64": np.float64, "F16": np.float16}.get(dtype, np.float32))
    for place in (None, (0, 0), (63, 63)):
        if place:
            wide[:] = 1
            wide[place] = number
        data = wide if dtype != "BF16" else (wide.view(np.uint32) >> 16).astype(np.uint16)
        write_tensor(tiny / "model.safetensors", QUERY, dtype, data)
        if place is None:
            query_of(tiny)
            continue
        with pytest.raises(ModelLoadError, match=rf"model\.safetensors: {QUERY} has numbers that"):
            query_of(tiny)


def write_tensor(path: Path, name: str, dtype: str, data: npt.NDArray[Any]) -> None:
    """Write a file with one tensor of any of the format's types."""
    entry = {"dtype": dtype, "shape": data.shape, "data_offsets": (0, data.nbytes)}
    header = json.dumps({name: entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data.tobytes())


def test_bf16_precision_keeps_eight_bits_of_each_number(tiny: Path) -> None:
    rounded = query_of(tiny, "bf16")

    assert not (rounded.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(rounded, query_of(tiny), rtol=2**-8)


def test_a_matrix_that_does_not_divide_into_groups_stays_as_it_is(tiny: Path) -> None:
    name = "odd.weight"
    odd = np.random.default_rng(1).normal(size=(4, 96)).astype(np.float32)
    save_file({name: odd}, tiny / "model.safetensors")

    np.testing.assert_array_equal(read(tiny, precision="4bit").dense_matrix(name, 4, 96), odd)


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls"},
    ],
)
def test_a_pooling_that_the_checkpoint_contradicts_is_refused(
    tiny: Path, config: dict[str, object]
) -> None:
    state_pooling(tiny, config)

    read(tiny, pooling="cls")
    with pytest.raises(ModelLoadError, match=r"1_Pooling/config\.json says pooling cls.* mean"):
        read(tiny, pooling="mean")


def test_a_pooling_that_nobody_here_knows_is_refused_by_its_name(tiny: Path) -> None:
    state_pooling(tiny, {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True})

    with pytest.raises(ModelLoadError, match=r"says pooling max_tokens \+ mean"):
        read(tiny, pooling="mean")


def test_a_module_after_the_encoder_that_nobody_runs_is_refused(tiny: Path) -> None:
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    (tiny / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelLoadError, match=r"modules\.json lists Dense"):
        read(tiny)


def test_minilm_contradicts_nothing(minilm: Path) -> None:
    assert read(minilm, pooling="mean").config.size("hidden_size") == 384


@pytest.mark.parametrize("precision", ["f32", "bf16", "8bit"])
def test_packed_weights_of_another_precision_are_refused(tiny: Path, precision: Precision) -> None:
    change_config(tiny, quantization={"group_size": 64, "bits": 4})

    with pytest.raises(ModelLoadError, match=rf"says 4-bit weights.* precision {precision}"):
        read(tiny, precision=precision)


def test_six_bits_are_refused_whatever_is_stated(tiny: Path) -> None:
    change_config(tiny, quantization={"group_size": 64, "bits": 6})

    with pytest.raises(ModelLoadError, match="says 6-bit weights"):
        read(tiny, precision="4bit")


def test_another_way_of_packing_is_refused(tiny: Path) -> None:
    change_config(tiny, quantization={"group_size": 32, "bits": 4, "mode": "mxfp4"})

    with pytest.raises(ModelLoadError, match="'mxfp4'"):
        read(tiny, precision="4bit")


@pytest.mark.parametrize("stated", [True, {}, {"bits": None, "group_size": 64}, [4, 64]])
def test_quantization_that_says_nothing_is_refused(tiny: Path, stated: object) -> None:
    change_config(tiny, quantization=stated)

    with pytest.raises(ModelLoadError, match=r"config\.json: `quantization`"):
        read(tiny, precision="4bit")


def test_packed_weights_that_config_does_not_explain_are_refused(tiny: Path) -> None:
    words = np.zeros((64, 8), np.uint32)
    save_file({QUERY: words}, tiny / "model.safetensors")

    with pytest.raises(ModelLoadError, match=r"quantized weights, but .*`quantization`"):
        query_of(tiny, "4bit")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_damaged_config_is_named(tiny: Path, content: bytes) -> None:
    (tiny / "config.json").write_bytes(content)

    with pytest.raises(ModelLoadError, match=r"config\.json"):
        read(tiny)


def test_a_missing_config_is_named(tiny: Path) -> None:
    (tiny / "config.json").unlink()

    with pytest.raises(ModelLoadError, match=r"config\.json is missing"):
        read(tiny)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "mamba"}, "model_type is 'mamba'.* any .*bert"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": "64"}, "hidden_size is '64'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads 5"),
        ({"layer_norm_eps": "tiny"}, "layer_norm_eps is 'tiny'"),
        ({"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True"),
    ],
)
def test_an_architecture_that_nobody_runs_is_named(
    tiny: Path, changes: dict[str, object], named: str
) -> None:
    change_config(tiny, **changes)

    with pytest.raises(ModelLoadError, match=named):
        read_architecture(read(tiny).config, backend="any")


def test_the_weights_are_not_opened_before_one_is_asked_for(tiny: Path) -> None:
    (tiny / "model.safetensors").unlink()

    assert read(tiny).config.size("hidden_size") == 64
