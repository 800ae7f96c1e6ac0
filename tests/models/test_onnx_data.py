"""Which files hold the weights of an ONNX file, as the library `onnx` writes them."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from emberd.backends.onnx.backend import OnnxBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import ModelLoadError
from emberd.models.files import hash_files
from emberd.models.onnx_data import check_data, data_files
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.fingerprint import fingerprint
from emberd.spaces.options import SpaceOptions

NUMBERS = np.arange(600, dtype=np.float32)


def tensor(name: str) -> onnx.TensorProto:
    return numpy_helper.from_array(NUMBERS, name)


def plain_model() -> onnx.ModelProto:
    return model_of([helper.make_node("Add", ["one", "two"], ["sum"])], ["one", "two"])


def model_of(nodes: list[onnx.NodeProto], weights: list[str]) -> onnx.ModelProto:
    output = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [600])
    graph = helper.make_graph(nodes, "g", [], [output], [*map(tensor, weights)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def branching_model() -> onnx.ModelProto:
    """A model with weights in an attribute, and in the graphs of two branches."""
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Add", [name, "here"], ["chosen"])], name, [],
            [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [600])], [tensor(name)],
        )
        for name in ("then", "else")
    }  # fmt: skip
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    return model_of(
        [
            helper.make_node("Constant", [], ["here"], value=tensor("here")),
            helper.make_node("Constant", [], ["yes"], value=yes),
            helper.make_node("If", ["yes"], ["sum"], **branches),
        ],
        [],
    )


def put_beside(message: onnx.TensorProto, location: str, **where: int) -> None:
    """Say that a tensor's data is in a file."""
    message.ClearField("raw_data")
    message.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **where}.items():
        message.external_data.add(key=key, value=str(value))


def write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_in_the_file_are_in_no_other(tmp_path: Path) -> None:
    path = write(tmp_path / "model.onnx", plain_model())

    assert data_files(path) == set()
    check_data(path)


@pytest.mark.parametrize(
    ("how", "files"),
    [
        ({"location": "model.onnx_data"}, {"model.onnx_data"}),
        ({"location": "weights of mine.bin"}, {"weights of mine.bin"}),
        ({"all_tensors_to_one_file": False}, {"one", "two"}),
    ],
)
def test_what_the_library_writes_beside_a_file_is_found(
    tmp_path: Path, how: Mapping[str, object], files: set[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(plain_model(), path, save_as_external_data=True, size_threshold=0, **how)  # type: ignore[arg-type]

    assert data_files(path) == files == {each.name for each in tmp_path.iterdir()} - {path.name}
    check_data(path)


def test_weights_of_attributes_and_branches_are_found(tmp_path: Path) -> None:
    model = branching_model()
    constant, _, choice = model.graph.node
    put_beside(constant.attribute[0].t, "of_attribute", length=2400)
    for attribute in choice.attribute:
        put_beside(attribute.g.initializer[0], f"of_{attribute.name}", length=2400)
    path = write(tmp_path / "model.onnx", model)

    assert data_files(path) == {"of_attribute", "of_then_branch", "of_else_branch"}
    (tmp_path / "of_attribute").write_bytes(NUMBERS.tobytes())
    (tmp_path / "of_then_branch").write_bytes(NUMBERS.tobytes())
    with pytest.raises(ModelLoadError, match=r"of_else_branch is missing, .* keeps else\.$"):
        check_data(path)


def test_weights_of_sparse_tensors_and_functions_are_found(tmp_path: Path) -> None:
    model = plain_model()
    sparse = model.graph.sparse_initializer.add(dims=[600])
    sparse.values.CopyFrom(tensor("values"))
    put_beside(sparse.values, "of_sparse")
    function = model.functions.add(name="f", domain="mine")
    function.node.append(helper.make_node("Constant", [], ["y"], value=tensor("inside")))
    put_beside(function.node[0].attribute[0].t, "of_function")

    assert data_files(write(tmp_path / "model.onnx", model)) == {"of_sparse", "of_function"}


@pytest.mark.parametrize(
    ("where", "needed"),
    [
        ({}, 2400),
        ({"offset": 100}, 2500),
        ({"offset": 100, "length": 2400}, 2500),
        ({"length": 12}, 2400),  # less than its numbers take
    ],
)
def test_data_that_is_too_short_is_refused(
    tmp_path: Path, where: Mapping[str, int], needed: int
) -> None:
    model = plain_model()
    put_beside(model.graph.initializer[0], "data", **where)
    path = write(tmp_path / "model.onnx", model)
    (tmp_path / "data").write_bytes(bytes(needed))
    check_data(path)

    (tmp_path / "data").write_bytes(bytes(needed - 1))

    with pytest.raises(ModelLoadError, match=rf"has {needed - 1} bytes, .*up to byte {needed}:"):
        check_data(path)


def test_data_before_the_beginning_of_a_file_is_refused(tmp_path: Path) -> None:
    model = plain_model()
    put_beside(model.graph.initializer[0], "data", offset=-8)
    path = write(tmp_path / "model.onnx", model)
    (tmp_path / "data").write_bytes(bytes(2400))

    with pytest.raises(ModelLoadError, match="is damaged"):
        check_data(path)


def test_half_a_file_never_passes_for_a_whole_one(tmp_path: Path) -> None:
    model = branching_model()
    put_beside(model.graph.node[0].attribute[0].t, "here", length=2400)
    (tmp_path / "here").write_bytes(NUMBERS.tobytes())
    path = write(tmp_path / "model.onnx", model)
    check_data(path)
    whole = path.read_bytes()
    after_graph = len(whole) - len(model.opset_import[0].SerializeToString()) - 2

    for end in range(0, after_graph, 7):
        path.write_bytes(whole[:end])
        if end > len(model.SerializeToString()) - model.graph.ByteSize():
            with pytest.raises(ModelLoadError, match=r"model\.onnx is damaged"):
                check_data(path)
        assert data_files(path) <= {"here"}


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_read_but_breaks_nothing(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    content = np.frombuffer(branching_model().SerializeToString(), np.uint8).copy()
    content[draw.integers(0, len(content), 20)] = draw.integers(0, 256, 20)
    path = tmp_path / "model.onnx"
    path.write_bytes(content.tobytes())

    assert data_files(path) <= {"here"}
    with suppress(ModelLoadError):
        check_data(path)


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    message = b""
    for _ in range(500):
        for number in (6, 5, 1):  # a graph in an attribute in a node
            length = len(message)
            size = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14])
            message = bytes([number << 3 | 2]) + size + message
    path = tmp_path / "model.onnx"
    length = len(message)
    path.write_bytes(
        bytes([7 << 3 | 2, length & 127 | 128, length >> 7 & 127 | 128, length >> 14]) + message
    )

    assert data_files(path) == set()
    with pytest.raises(ModelLoadError, match="is damaged"):
        check_data(path)


def space(folder: Path, files: tuple[str, ...]) -> str:
    """The fingerprint of a folder's model."""
    spec = ModelSpec(name="m", sources=(Source(path="x"),), dimensions=4, pooling="mean")
    hashes = hash_files(folder, files, known={})
    return fingerprint(spec, files=hashes, options=SpaceOptions(), dimensions=4)


def test_data_beside_an_onnx_file_belongs_to_its_space_and_nothing_else_does(
    tmp_path: Path,
) -> None:
    (tmp_path / "onnx").mkdir()
    path = tmp_path / "onnx" / "model.onnx"
    onnx.save_model(
        plain_model(), path, save_as_external_data=True, size_threshold=0, location="mine.bin"
    )
    (tmp_path / "config.json").write_text("{}")
    before = space(tmp_path, OnnxBackend.files)
    of_safetensors = space(tmp_path, OpenVINOBackend.files)
    assert [*hash_files(tmp_path, OnnxBackend.files, known={})] == [
        "config.json", "onnx/mine.bin", "onnx/model.onnx",
    ]  # fmt: skip

    # what another backend reads
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "shard"}}')
    (tmp_path / "shard").write_bytes(b"weights")
    (tmp_path / "onnx" / "model_quantized.onnx").write_bytes(b"another")
    assert space(tmp_path, OnnxBackend.files) == before
    assert space(tmp_path, OpenVINOBackend.files) != of_safetensors

    with (tmp_path / "onnx" / "mine.bin").open("r+b") as data:
        data.write(b"other weights")
    assert space(tmp_path, OnnxBackend.files) != before
