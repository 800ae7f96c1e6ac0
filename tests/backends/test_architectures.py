"""Our own architectures: both backends give the vectors that transformers gives."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd.backends import plugins
from emberd.backends.architectures.base import Architecture
from emberd.backends.architectures.jina_bert import JinaBert
from emberd.backends.architectures.native import NATIVE, name_of, read_architecture
from emberd.backends.base import Backend, Encoder, LoadRequest, Pooling, Precision
from emberd.backends.config import ModelConfig
from emberd.backends.conformance import check_backend
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.runtime import capabilities, make_core
from emberd.backends.relative_positions import buckets, distance_buckets
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix
from tests.backends.nearness import BACKENDS, BITS, encode, lowest_to_dequantized
from tests.backends.references import (
    MOST_TOKENS,
    TINY,
    add_dense,
    batch_of,
    change_json,
    copy_of,
    pack,
    pack_with_heads,
    padded_left,
    poolings_of,
    stated,
    vectors_of,
)
from tests.backends.support import a_request
from tests.cosines import cosines

OPENVINO, MLX = OpenVINOBackend(), MLXBackend()
SLOW = pytest.mark.slow
BOTH = pytest.mark.parametrize("backend", [OPENVINO, MLX], ids=type)
FAMILIES = pytest.mark.parametrize("name", sorted(MOST_TOKENS))
# RoBERTa is BERT with other positions, and XLM-RoBERTa is RoBERTa with another vocabulary; `new` is
# `gte` with scaled positions. DistilBERT is BERT without segments; `t5-gated` has one layer more
# than `t5`; JinaBERT for code has more norms than JinaBERT. `test_static.py` is about model2vec.
ALIKE = ("distilbert", "gte", "jina_bert-code", "roberta", "t5", "xlm-roberta")
DISTINCT = sorted(MOST_TOKENS.keys() - {*ALIKE, "model2vec"})
SOME_FAMILIES = pytest.mark.parametrize(
    "name", [*DISTINCT, *(pytest.param(name, marks=SLOW) for name in ALIKE)]
)


def in_precisions(*precisions: Precision) -> list[Any]:
    """Return names with precisions; 8 bits differ from 4 by a number alone, so BERT is enough."""
    return [
        pytest.param(
            name,
            precision,
            marks=SLOW if name in ALIKE or (precision == "8bit" and name != "bert") else (),
        )
        for name in [*DISTINCT, *ALIKE]
        for precision in precisions
    ]


@cache
def vectors_in(backend: Backend, name: str, precision: Precision) -> Matrix:
    """Return the vectors of an unchanged checkpoint; several tests compare them."""
    with tempfile.TemporaryDirectory() as scratch:
        return encode(backend, TINY / name, Path(scratch), precision=precision)


def test_every_family_is_tested_here() -> None:
    names = {name_of(ModelConfig(TINY / name / "config.json")) for name in MOST_TOKENS}
    assert names == NATIVE


@BOTH
@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        # which tokens are pooled is the same code for all (`rows.py`)
        pytest.param(name, pooling, marks=() if name == "bert" or pooling == stated(name) else SLOW)
        for name in sorted(MOST_TOKENS)
        for pooling in poolings_of(name)
    ],
)
def test_the_vectors_are_those_of_transformers(
    backend: Backend, name: str, pooling: Pooling, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name, pooling=pooling)

    vectors = encode(backend, folder, tmp_path, pooling=pooling)

    reference = vectors_of(name, pooling)
    assert cosines(vectors, reference).min() > 0.99999
    np.testing.assert_allclose(vectors, reference, atol=1e-4)


@BOTH
@pytest.mark.parametrize(
    "name",
    [
        # those whose arithmetic is not BERT's, which `test_conformance.py` has
        *(name for name in DISTINCT if name != "bert"),
        *(pytest.param(name, marks=SLOW) for name in ("bert", "model2vec", *ALIKE)),
    ],
)
def test_every_promise_of_a_backend_is_kept(backend: Backend, name: str) -> None:
    check_backend(
        backend, TINY / name, dimensions=64, pooling=stated(name), max_tokens=MOST_TOKENS[name]
    )


@pytest.mark.parametrize(("name", "precision"), in_precisions("bf16", "4bit", "8bit"))
def test_full_weights_make_one_space_on_both_backends(name: str, precision: Precision) -> None:
    ours, theirs = (vectors_in(backend, name, precision) for backend in (OPENVINO, MLX))

    assert cosines(ours, theirs).min() > 0.99999


@pytest.mark.parametrize(("name", "precision"), in_precisions("4bit", "8bit"))
def test_packed_weights_make_the_space_of_full_ones_on_both_backends(
    name: str, precision: Precision, tmp_path: Path
) -> None:
    full = vectors_in(OPENVINO, name, precision)
    packed = copy_of(name, tmp_path / name)
    pack_with_heads(packed, BITS[precision])

    for backend in (OPENVINO, MLX):
        assert cosines(encode(backend, packed, tmp_path, precision=precision), full).min() > 0.99999


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("modernbert", "4bit"),
        *(
            pytest.param(name, precision, marks=SLOW)
            for name in sorted(MOST_TOKENS)
            for precision in ("4bit", "8bit")
            if (name, precision) != ("modernbert", "4bit")
        ),
    ],
)
def test_quantized_weights_are_what_mlx_makes_of_them(
    backend: str, name: str, precision: Precision, tmp_path: Path
) -> None:
    assert lowest_to_dequantized(backend, name, precision, tmp_path) > 0.99999


@SOME_FAMILIES
def test_less_precision_makes_another_space_but_less_so_with_more_bits(name: str) -> None:
    reference = vectors_of(name, stated(name))
    precisions: list[Precision] = ["bf16", "8bit", "4bit"]
    lowest = [
        cosines(vectors_in(OPENVINO, name, precision), reference).min() for precision in precisions
    ]

    assert lowest[0] > 0.999
    assert lowest[1] > 0.995
    assert 0.5 < lowest[2] < 0.999


@BOTH
def test_layers_that_do_not_divide_into_groups_of_64_stay_whole(
    backend: Backend, tmp_path: Path
) -> None:
    folder = copy_of("mpnet", tmp_path / "mpnet")
    tensors = load_file(folder / "model.safetensors")
    for name in list(tensors):
        if "intermediate.dense" in name:
            tensors[name] = tensors[name][:32]
        elif name.endswith("output.dense.weight"):
            tensors[name] = np.ascontiguousarray(tensors[name][:, :32])
    save_file(tensors, folder / "model.safetensors")
    change_json(folder / "config.json", intermediate_size=32)

    ours = encode(backend, folder, tmp_path, precision="4bit")
    pack(folder, 4)
    packed = encode(backend, folder, tmp_path / "packed", precision="4bit")

    assert cosines(ours, packed).min() > 0.99999


@BOTH
@FAMILIES
def test_bf16_arithmetic_stays_near(backend: Backend, name: str, tmp_path: Path) -> None:
    reference = vectors_of(name, stated(name))
    if backend is OPENVINO and "BF16" not in capabilities(make_core()):
        pytest.skip("this processor has no bf16")

    vectors = encode(backend, TINY / name, tmp_path, compute="bf16")

    assert cosines(vectors, reference).min() > 0.999


@BOTH
@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_the_last_token_is_found_on_whichever_side_the_padding_is(
    backend: Backend, name: str, tmp_path: Path
) -> None:
    # Both count only tokens that are not the padding's, so that positions stay, too.
    folder = copy_of(name, tmp_path / name, pooling="last")
    encoder = backend.load(a_request(folder, tmp_path / "cache", pooling="last", compute="f32"))

    vectors = encoder.encode(*padded_left(*batch_of(name)))

    reference = vectors_of(name, "last")
    assert cosines(vectors, reference).min() > 0.99999


@BOTH
@pytest.mark.parametrize("prefix", ["roberta.", "model."])
def test_a_prefix_of_the_names_changes_nothing(
    backend: Backend, prefix: str, tmp_path: Path
) -> None:
    folder = copy_of("roberta", tmp_path / "roberta")
    tensors = load_file(folder / "model.safetensors")
    save_file({prefix + name: tensors[name] for name in tensors}, folder / "model.safetensors")
    reference = vectors_of("roberta", "mean")

    assert cosines(encode(backend, folder, tmp_path, rows=2), reference[:2]).min() > 0.99999


ACTIVATIONS: dict[str, Callable[[Matrix], Matrix]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "GELU": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
}


@BOTH
@pytest.mark.parametrize(
    ("activation", "bias"),
    [
        *((activation, True) for activation in ACTIVATIONS),
        ("Identity", False),
        *(pytest.param(activation, False, marks=SLOW) for activation in ("Tanh", "ReLU", "GELU")),
    ],
)
def test_a_dense_head_is_applied_to_the_pooled_vector(
    backend: Backend, activation: str, bias: bool, tmp_path: Path
) -> None:
    folder = copy_of("bert", tmp_path / "bert")
    weight, shift = add_dense(folder, activation=activation, inputs=64, outputs=24, bias=bias)
    reference = vectors_of("bert", "mean")

    vectors = encode(backend, folder, tmp_path)

    expected = ACTIVATIONS[activation](reference @ weight.T + shift)
    np.testing.assert_allclose(vectors, expected, atol=1e-4)


@pytest.mark.parametrize(
    "precision",
    ["f32", "4bit", pytest.param("bf16", marks=SLOW), pytest.param("8bit", marks=SLOW)],
)
def test_dense_heads_follow_each_other_and_make_one_space_on_both_backends(
    precision: Precision, tmp_path: Path
) -> None:
    folder = copy_of("mpnet", tmp_path / "mpnet")
    add_dense(folder, activation="GELU", inputs=64, outputs=128)
    add_dense(folder, activation="Tanh", inputs=128, outputs=32, index=3)

    ours, theirs = (
        encode(backend, folder, tmp_path, precision=precision) for backend in (OPENVINO, MLX)
    )

    assert ours.shape[1] == 32
    assert cosines(ours, theirs).min() > 0.99999


@BOTH
def test_dimensions_are_those_after_the_heads(backend: Backend, tmp_path: Path) -> None:
    folder = copy_of("bert", tmp_path / "bert")
    add_dense(folder, activation="Tanh", inputs=64, outputs=24)

    assert backend.load(a_request(folder, tmp_path / "cache")).dimensions == 24


def spoil_heads(folder: Path, change: str) -> None:
    if change == "another function":
        change_json(folder / "2_Dense/config.json", activation_function="torch.nn.modules.Mish")
    elif change == "another input":
        change_json(folder / "2_Dense/config.json", in_features=32)
    elif change == "no file":
        (folder / "2_Dense/model.safetensors").unlink()
    elif change == "no list":
        (folder / "modules.json").unlink()
    elif change == "tokens":
        change_json(folder / "2_Dense/config.json", module_input_name="token_embeddings")
    else:
        modules = json.loads((folder / "modules.json").read_text())
        if change == "before pooling":
            modules = [modules[0], modules[2], modules[1]]
        elif change == "after the unit length":
            normalize = {"type": "sentence_transformers.models.Normalize", "path": ""}
            modules.insert(2, normalize)
        elif change == "elsewhere":
            modules[2]["path"] = "../2_Dense"
        elif change == "not listed":
            del modules[2]
        elif change == "two poolings":
            modules.insert(1, modules[1])
        elif change == "unit length first":
            normalize = {"type": "sentence_transformers.models.Normalize", "path": ""}
            modules = [modules[0], normalize, modules[1]]
        (folder / "modules.json").write_text(json.dumps(modules))


@BOTH
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("another function", "activation_function is Mish; only Identity, Tanh"),
        ("another input", r"2_Dense\.linear .*32 .*64"),
        ("no file", r"2_Dense/model\.safetensors is missing"),
        ("tokens", "module_input_name is 'token_embeddings'"),
        ("before pooling", "Transformer > Dense > Pooling; "),
        ("after the unit length", "Normalize > Dense; "),
        ("elsewhere", r"lists Dense with path '\.\./2_Dense'"),
        ("not listed", r"2_Dense holds a Dense head, but .*modules\.json does not list it\."),
        ("no list", r"2_Dense holds a Dense head, but .*list it \(there is no such file\)"),
        ("two poolings", "Transformer > Pooling > Pooling > Dense; "),
        ("unit length first", "Transformer > Normalize > Pooling; "),
    ],
)
def test_heads_that_cannot_be_applied_are_refused(
    backend: Backend, change: str, named: str, tmp_path: Path
) -> None:
    folder = copy_of("bert", tmp_path / "bert")
    add_dense(folder, activation="Tanh", inputs=64, outputs=24)
    spoil_heads(folder, change)

    with pytest.raises(ModelLoadError, match=named):
        backend.load(a_request(folder, tmp_path / "cache"))


@BOTH
@FAMILIES
def test_a_pooling_that_the_checkpoint_contradicts_is_refused_with_both_named(
    backend: Backend, name: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=rf"says pooling {stated(name)}.* cls"):
        backend.load(a_request(TINY / name, tmp_path, pooling="cls"))


def test_openvino_names_an_architecture_that_it_does_not_run(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"'llama_bidirec'.* openvino .*bert, .*mpnet,"):
        OPENVINO.load(a_request(TINY / "llama_bidirec", tmp_path))


def test_a_backend_says_what_it_runs_or_nothing() -> None:
    class Silent:
        files: ClassVar[tuple[str, ...]] = ("config.json",)
        libraries: ClassVar[tuple[str, ...]] = ("numpy",)

        def load(self, request: LoadRequest) -> Encoder:
            raise NotImplementedError(request)

    assert plugins.architectures(OPENVINO) == NATIVE
    assert plugins.architectures(MLX) > NATIVE
    assert plugins.architectures(Silent()) == frozenset()


def sizes_of(name: str, tmp_path: Path, **changes: object) -> Architecture:
    path = tmp_path / "config.json"
    shutil.copy(TINY / name / "config.json", path)
    change_json(path, **changes)
    return read_architecture(ModelConfig(path), backend="any", runs=NATIVE)


@pytest.mark.parametrize(
    ("name", "changes", "most"),
    [
        ("bert", {}, 40),
        ("roberta", {}, 40),
        ("roberta", {"pad_token_id": None}, 40),  # its class's default is 1
        ("roberta", {"pad_token_id": 0}, 41),
        ("xlm-roberta", {}, 40),
        ("distilbert", {}, 40),
        ("mpnet", {}, 130),
        ("mpnet", {"pad_token_id": 5}, 130),
        ("t5", {}, 130),
        ("t5", {"n_positions": None}, 512),  # what the released ones were trained with
        ("nomic_bert", {}, 64),
        ("nomic_bert", {"n_positions": None}, 32),  # as Transformers 5 writes it
        ("new", {}, 64),
        ("jina_bert", {}, 300),
    ],
)
def test_positions_after_the_padding_index_leave_fewer_for_tokens(
    name: str, changes: dict[str, object], most: int, tmp_path: Path
) -> None:
    assert sizes_of(name, tmp_path, **changes).max_tokens == most


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("roberta", {"pad_token_id": "1"}, "pad_token_id is '1'"),
        ("roberta", {"pad_token_id": 41}, "pad_token_id is 41"),
        ("xlm-roberta", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "num_buckets is 64; only 32"),
        ("mpnet", {"hidden_act": "quick_gelu"}, "hidden_act is 'quick_gelu'"),
        ("distilbert", {"activation": "quick_gelu"}, "activation is 'quick_gelu'"),
        ("distilbert", {"n_heads": 5}, "hidden_size 64 is not a multiple of n_heads 5"),
        ("t5", {"relative_attention_num_buckets": 64}, "num_buckets is 64; only 32"),
        ("t5", {"relative_attention_max_distance": 64}, "max_distance is 64; only 128"),
        ("t5", {"feed_forward_proj": "gated-quick_gelu"}, "feed_forward_proj is 'quick_gelu'"),
        ("t5", {"feed_forward_proj": "split-relu"}, "feed_forward_proj is 'split-relu'"),
        ("nomic_bert", {"activation_function": "gelu"}, "activation_function is 'gelu'"),
        ("nomic_bert", {"num_experts": 8}, "num_experts is 8; only 0"),
        ("nomic_bert", {"activation_function": "gelu", "num_experts": 8}, "num_experts is 8"),
        ("nomic_bert", {"prenorm": True}, "prenorm is True; only False"),
        ("nomic_bert", {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5; only 1.0"),
        ("nomic_bert", {"rotary_emb_base": 0}, "rotary_emb_base is 0, not a positive"),
        ("nomic_bert", {"rotary_scaling_factor": 2}, "rotary_scaling_factor is 2; only None"),
        ("nomic_bert", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        ("new", {"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'"),
        ("new", {"logn_attention_scale": True}, "logn_attention_scale is True"),
        ("new", {"pack_qkv": False}, "pack_qkv is False"),
        ("new", {"position_embedding_type": "absolute"}, "position_embedding_type is 'absolute'"),
        ("new", {"rope_scaling": {"type": "ntk", "factor": "2"}}, "factor is '2', not a positive"),
        ("new", {"rope_scaling": {"type": "ntk", "factor": 2, "mixed_b": 0.6}}, "only 'ntk'"),
        ("new", {"rope_scaling": {"type": "linear", "factor": 2}}, "scaling .*'linear'.* only"),
        ("new", {"rope_scaling": [2]}, r"rope_parameters is \[2\], not a mapping"),
        ("gte", {"rope_theta": None}, "rope_theta is None, not a positive"),
        (
            "jina_bert",
            {"feed_forward_type": "original"},
            "type is 'original'; .*geglu",
        ),
        ("jina_bert", {"feed_forward_type": None}, "type is 'original'; .*reglu"),
        ("jina_bert", {"is_decoder": True}, "is_decoder is True; only False"),
        (
            "jina_bert",
            {"num_attention_heads": 12},
            "64 is not a multiple of num_att.* 12",
        ),
        ("jina_bert", {"position_embedding_type": "relative_key"}, "type is 'relative_key'; only"),
    ],
)
def test_a_variant_with_other_arithmetic_is_refused(
    name: str, changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=named):
        sizes_of(name, tmp_path, **changes)


def test_a_variant_of_a_model_type_has_a_name_of_its_own(tmp_path: Path) -> None:
    shutil.copy(TINY / "jina_bert" / "config.json", tmp_path)

    with pytest.raises(ModelLoadError, match=r"'bert' \(the architecture jina_bert\).* any .*bert"):
        read_architecture(ModelConfig(tmp_path / "config.json"), backend="any")


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [
        (2, [4, 8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),  # jina-embeddings-v2-base
    ],
)
def test_slopes_are_those_of_alibi(heads: int, exponents: list[float], tmp_path: Path) -> None:
    jina = sizes_of("jina_bert", tmp_path, num_attention_heads=heads, hidden_size=heads * 16)

    assert isinstance(jina, JinaBert)
    assert np.allclose(-np.log2(jina.slopes), exponents)


def test_a_backend_that_says_nothing_more_runs_bert_only(tmp_path: Path) -> None:
    shutil.copy(TINY / "roberta" / "config.json", tmp_path)

    with pytest.raises(ModelLoadError, match=r"'roberta'.* any .*bert"):
        read_architecture(ModelConfig(tmp_path / "config.json"), backend="any")


def test_distances_fall_into_the_buckets_of_t5() -> None:
    distances = np.array(
        [0, -1, 1, -7, 7, -8, 8, -11, 11, -12, 16, -16, 32, 64, 91, 127, 128, -999]
    )

    expected = [0, 1, 17, 7, 23, 8, 24, 8, 24, 9, 26, 10, 28, 30, 31, 31, 31, 15]
    assert buckets(distances).tolist() == expected
    assert distance_buckets(3).tolist() == [2, 1, 0, 17, 18]
