"""ModernBERT, Qwen 3 and Gemma 3: masks, padding, spellings of config.json, and refused variants.

What they share with all architectures is in `test_architectures.py`.
"""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pytest

from emberd.backends.base import Backend, Compute, Precision, TokenIds
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.mlx.packed import Packed
from emberd.backends.openvino import graph
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.runtime import capabilities, make_core
from emberd.backends.rows import Rows
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix
from tests.backends.references import (
    PACKED,
    TINY,
    batch_of,
    change_json,
    copy_of,
    load,
    pack_with_heads,
    padded_left,
    stated,
    vectors_of,
)
from tests.cosines import cosines

OPENVINO, MLX = OpenVINOBackend(), MLXBackend()
BOTH = pytest.mark.parametrize("backend", [OPENVINO, MLX], ids=type)
NAMES = pytest.mark.parametrize("name", ["gemma3_text", "modernbert", "qwen3"])
HALF: list[Compute] = ["f16", "bf16"]


def encode(
    backend: Backend,
    folder: Path,
    scratch: Path,
    *,
    precision: Precision = "f32",
    compute: Compute = "f32",
) -> Matrix:
    encoder = load(backend, folder, scratch, precision=precision, compute=compute)
    return encoder.encode(*batch_of(folder.name))


@BOTH
@NAMES
def test_padding_on_the_left_changes_nothing(backend: Backend, name: str, tmp_path: Path) -> None:
    encoder = load(backend, TINY / name, tmp_path)

    vectors = encoder.encode(*padded_left(*batch_of(name)))

    assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.99999


@NAMES
def test_padding_on_the_left_makes_no_nan_of_f16(name: str, tmp_path: Path) -> None:
    encoder = load(MLX, TINY / name, tmp_path, compute="f16")

    vectors = encoder.encode(*padded_left(*batch_of(name)))

    assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.999


@NAMES
@pytest.mark.parametrize("compute", HALF)
def test_half_the_digits_give_no_nan_in_a_padded_batch(
    name: str, compute: Compute, tmp_path: Path
) -> None:
    vectors = encode(MLX, TINY / name, tmp_path, compute=compute)

    assert np.isfinite(vectors).all()
    assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.999


@pytest.mark.slow
@NAMES
def test_quantized_weights_can_do_with_half_the_digits(name: str, tmp_path: Path) -> None:
    exact = encode(MLX, TINY / name, tmp_path, precision="4bit")

    for compute in HALF:
        fast = encode(MLX, TINY / name, tmp_path, precision="4bit", compute=compute)
        assert cosines(fast, exact).min() > 0.999


@BOTH
def test_a_local_layer_far_from_any_text_spoils_none_after_it(
    backend: Backend, tmp_path: Path
) -> None:
    folder = copy_of("modernbert", tmp_path / "modernbert")
    change_json(folder / "config.json", layer_types=["sliding_attention", "full_attention"])
    encoder = load(backend, folder, tmp_path)
    token_ids, mask = batch_of("modernbert")
    alone = [encoder.encode(row[None, : seen.sum()], seen[None, : seen.sum()])
             for row, seen in zip(token_ids, mask, strict=True)]  # fmt: skip

    assert mask.sum(axis=1).min() < mask.shape[1] - 8
    assert cosines(encoder.encode(token_ids, mask), np.concatenate(alone)).min() > 0.99999


@pytest.mark.parametrize("tokens", [144, 145, pytest.param(300, marks=pytest.mark.slow), 700])
@pytest.mark.parametrize("name", ["gemma3_text", "modernbert"])
def test_local_layers_block_by_block_see_what_they_see_at_once(
    name: str, tokens: int, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name)
    window = {"local_attention": 16} if name == "modernbert" else {"sliding_window": 16}
    kinds = ["sliding_attention"] * 2
    change_json(folder / "config.json", max_position_embeddings=1024, layer_types=kinds, **window)
    rows, mask = long_rows(tokens)

    ours = load(OPENVINO, folder, tmp_path / "ours").encode(rows, mask)
    theirs = load(MLX, folder, tmp_path / "theirs").encode(rows, mask)

    assert cosines(ours, ours[[1, 2, 3, 0]]).max() < 0.99
    assert cosines(ours, theirs).min() > 0.99999


def long_rows(tokens: int) -> tuple[TokenIds, TokenIds]:
    """Return a row with one text, one with two, and one whose text is far from its end."""
    token_ids = np.random.default_rng(3).integers(5, 90, (3, tokens)).astype(np.int32)
    mask = np.ones_like(token_ids)
    mask[1, tokens // 3 :] = 2
    mask[2, 9:] = 0
    return token_ids * (mask > 0), mask


Pairs = npt.NDArray[np.bool_]


def seen_in(mask: list[list[int]], *, causal: bool, within: int | None) -> Pairs:
    marks = np.array(mask, np.int32)
    rows = Rows.of(np.abs(marks), marks, pooling="mean", padding_id=None)
    batch = Packed.of(rows, marks, few_shapes=False)
    unseen = batch.unseen(mx.float32, causal=causal, within=within)
    assert unseen is not None
    shape = (len(mask), 1, marks.shape[1], marks.shape[1])
    seen: Pairs = np.equal(np.broadcast_to(np.array(unseen), shape), 0)
    return seen


@pytest.mark.parametrize("within", [None, 1])
@pytest.mark.parametrize("causal", [True, False])
def test_no_token_of_a_padded_text_sees_nothing(causal: bool, within: int | None) -> None:
    mask = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1]]

    seen = seen_in(mask, causal=causal, within=within)

    assert seen.shape == (3, 1, 5, 5)
    assert seen.any(axis=-1).all()
    allowed = allowed_for(5, causal, within)
    for row, marks in enumerate(mask):
        tokens = np.flatnonzero(marks)
        assert (seen[row, 0][np.ix_(tokens, tokens)] == allowed[np.ix_(tokens, tokens)]).all()
        if causal or within:
            assert not seen[row, 0][np.ix_(tokens, np.flatnonzero(np.equal(marks, 0)))].any()


def allowed_for(tokens: int, causal: bool, within: int | None) -> Pairs:
    """Which keys a query may see by their distance, query by key."""
    distance = np.arange(tokens) - np.arange(tokens)[:, None]
    allowed: Pairs = (distance <= 0) if causal else np.ones((tokens, tokens), bool)
    return allowed if within is None else allowed & (np.abs(distance) <= within)


@BOTH
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_that_a_checkpoint_notes_changes_nothing(
    backend: Backend, side: str, tmp_path: Path
) -> None:
    folder = copy_of("qwen3", tmp_path / "qwen3")
    change_json(folder / "tokenizer_config.json", padding_side=side)

    assert cosines(encode(backend, folder, tmp_path), vectors_of("qwen3", "last")).min() > 0.99999


@BOTH
@pytest.mark.parametrize(
    "name",  # without a prefix, all of them are in `test_architectures.py`
    [
        "gemma3_text",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("modernbert", "qwen3")),
    ],
)
@PACKED
def test_packed_weights_make_the_space_of_full_ones(
    backend: Backend, name: str, prefix: str, precision: Precision, bits: int, tmp_path: Path
) -> None:
    packed = copy_of(name, tmp_path / name)
    pack_with_heads(packed, bits, prefix=prefix)

    ours = encode(backend, TINY / name, tmp_path, precision=precision)
    theirs = encode(backend, packed, tmp_path, precision=precision)

    assert cosines(ours, theirs).min() > 0.99999
    lowest = cosines(ours, vectors_of(name, stated(name))).min()
    assert lowest > 0.99 if bits == 8 else 0.3 < lowest < 0.999


@pytest.mark.skipif(mx.cuda.is_available(), reason="CUDA is slow with packed weights")
@NAMES
def test_a_quantized_model_stays_packed_in_memory(name: str, tmp_path: Path) -> None:
    def bytes_of(precision: Precision) -> int:
        before = mx.get_active_memory()
        encoder = load(MLX, TINY / name, tmp_path, precision=precision)
        assert encoder.dimensions == 64
        return int(mx.get_active_memory() - before)

    assert bytes_of("4bit") < 0.4 * bytes_of("f32")


@pytest.mark.parametrize("streams", [1, 2])
@NAMES
def test_one_thread_for_each_batch_gives_the_same(name: str, streams: int, tmp_path: Path) -> None:
    # With AMX and one thread, a kernel that OpenVINO makes of gated layers divides by zero.
    compute: Compute = "auto"

    encoder = load(
        OPENVINO, TINY / name, tmp_path, precision="bf16", compute=compute, streams=streams
    )

    assert cosines(encoder.encode(*batch_of(name)), vectors_of(name, stated(name))).min() > 0.999


def in_bf16(name: str, folder: Path) -> Path:
    """Copy a checkpoint, with its weights stored in bfloat16."""
    copy_of(name, folder)
    path = folder / "model.safetensors"
    tensors: Any = mx.load(str(path))
    stored = {key: tensor.astype(mx.bfloat16) for key, tensor in tensors.items()}
    mx.eval(stored)
    path.unlink()
    mx.save_safetensors(str(path), stored)
    return folder


@NAMES
def test_weights_in_bf16_make_the_space_of_weights_rounded_to_it(name: str, tmp_path: Path) -> None:
    stored = in_bf16(name, tmp_path / name)
    vectors = encode(MLX, TINY / name, tmp_path, precision="bf16")

    for folder in (stored, TINY / name):
        for precision in ("f32", "bf16") if folder == stored else ("bf16",):
            ours = encode(OPENVINO, folder, tmp_path / precision, precision=precision)
            assert cosines(ours, vectors).min() > 0.99999
    assert cosines(encode(MLX, stored, tmp_path), vectors).min() > 0.99999


@pytest.mark.skipif("BF16" not in capabilities(make_core()), reason="no bf16 here")
@NAMES
def test_weights_in_bf16_take_half_the_room_in_a_compiled_model(name: str, tmp_path: Path) -> None:
    sizes: list[int] = []
    for folder in (TINY / name, in_bf16(name, tmp_path / name)):
        cache = tmp_path / str(len(sizes))
        vectors = encode(OPENVINO, folder, cache, compute="bf16")
        assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.998
        sizes.append(sum(path.stat().st_size for path in cache.rglob("*.blob")))

    full = (TINY / name / "model.safetensors").stat().st_size
    assert sizes[0] - sizes[1] > 0.4 * full


@pytest.mark.parametrize("stored", ["f32", "bf16"])
@NAMES
def test_a_large_table_is_several_constants_and_the_vectors_are_the_same(
    name: str, stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = TINY / name if stored == "f32" else in_bf16(name, tmp_path / name)
    as_one = encode(OPENVINO, folder, tmp_path / "one")
    monkeypatch.setattr(graph, "_MOST_BYTES", 7000)

    in_parts = encode(OPENVINO, folder, tmp_path / "parts")

    np.testing.assert_array_equal(in_parts, as_one)
    assert len({path.stat().st_size for path in tmp_path.rglob("*.blob")}) == 2


THETAS = {
    "gemma3_text": ("rope_theta", "rope_local_base_freq"),
    "modernbert": ("global_rope_theta", "local_rope_theta"),
    "qwen3": ("rope_theta",),
}


@BOTH
@NAMES
def test_a_config_as_transformers_5_writes_it_means_the_same(
    backend: Backend, name: str, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    ropes = [{"rope_type": "default", "rope_theta": config[theta]} for theta in THETAS[name]]
    kinds = ("full_attention", "sliding_attention")
    change_json(
        folder / "config.json",
        rope_parameters=ropes[0] if len(ropes) == 1 else dict(zip(kinds, ropes, strict=True)),
        **dict.fromkeys(THETAS[name]),
    )

    vectors = encode(backend, folder, tmp_path)

    assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.99999


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("gemma3_text", "sliding_window_pattern"), ("modernbert", "global_attn_every_n_layers")],
)
def test_kinds_of_layers_count_more_than_their_pattern(
    name: str, pattern: str, tmp_path: Path
) -> None:
    kinds = {
        "gemma3_text": ["sliding_attention", "full_attention"],
        "modernbert": ["full_attention", "sliding_attention"],
    }
    for both in (True, False):
        folder = copy_of(name, tmp_path / str(both) / name)
        change_json(folder / "config.json", layer_types=kinds[name] if both else None,
                    **{pattern: 1 if both else 2})  # fmt: skip
        vectors = encode(OPENVINO, folder, tmp_path)
        assert cosines(vectors, vectors_of(name, stated(name))).min() > 0.99999

    all_global = copy_of(name, tmp_path / "global" / name)
    change_json(all_global / "config.json", layer_types=["full_attention"] * 2)
    vectors = encode(OPENVINO, all_global, tmp_path)
    assert cosines(vectors, vectors_of(name, stated(name))).min() < 0.999


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0}


@BOTH
@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen3", {"layer_types": ["sliding_attention"] * 2}, "layer_types has local layers"),
        ("qwen3", {"rope_scaling": YARN}, "rope_scaling is {'rope_type': 'yarn'"),
        ("qwen3", {"rope_parameters": YARN}, "rope_type is 'yarn'"),
        ("qwen3", {"rope_parameters": [1]}, r"`rope_parameters` .*\[1\]"),
        ("qwen3", {"rope_theta": 0}, "rope_theta is 0, not a positive number"),
        ("qwen3", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("qwen3", {"num_key_value_heads": 3}, "4 is not a multiple of num_key_value_heads 3"),
        ("qwen3", {"intermediate_size": "wide"}, "intermediate_size is 'wide'"),
        ("qwen3", {"hidden_size": 128}, r"embed_tokens\.weight has shape"),
        ("modernbert", {"intermediate_size": None}, "intermediate_size is None"),
        ("modernbert", {"hidden_activation": "quick_gelu"}, "hidden_activation is 'quick_gelu'"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types is .* 2 layers"),
        ("modernbert", {"layer_types": ["full_attention", {}]}, "layer_types is .* 2 layers"),
        ("modernbert", {"norm_bias": True}, "norm_bias is True"),
        ("gemma3_text", {"use_bidirectional_attention": False}, "attention is False"),
        ("gemma3_text", {"use_bidirectional_attention": None}, "attention is None"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "softcapping is 50.0"),
    ],
)
def test_a_variant_with_other_arithmetic_is_refused(
    backend: Backend, name: str, changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name)
    change_json(folder / "config.json", **changes)

    with pytest.raises(ModelLoadError, match=named):
        load(backend, folder, tmp_path)


@BOTH
@pytest.mark.parametrize("left", ["the folders of heads", "nothing"])
def test_heads_that_no_file_lists_are_refused(backend: Backend, left: str, tmp_path: Path) -> None:
    folder = copy_of("gemma3_text", tmp_path / "gemma3_text")
    pack_with_heads(folder, 4)
    (folder / "modules.json").unlink()
    named = r"holds a Dense head, but .*modules\.json"
    if left == "nothing":
        for step in folder.glob("*_Dense/config.json"):
            step.unlink()
        named = r"include Dense heads, but there is no modules\.json"

    with pytest.raises(ModelLoadError, match=named):
        load(backend, folder, tmp_path, precision="4bit")
