"""Safetensors files: read without copies, widened exactly, and refused when they are damaged."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from emberd.backends.tensors import open_tensors
from emberd.errors import ModelLoadError

VALUES = np.array([[1.5, -2.0, 0.0], [0.25, 1e-3, 7.0]], np.float32)


def write(path: Path, header: object, data: bytes) -> None:
    """Write a file in the format, right or wrong."""
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)


def test_float32_is_the_file_itself(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "a.safetensors")

    tensor = open_tensors(tmp_path / "a.safetensors")["a"]

    assert np.shares_memory(tensor.floats(), tensor.data)
    np.testing.assert_array_equal(tensor.floats(), VALUES)


def test_writing_into_an_array_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": VALUES}, path)

    open_tensors(path)["a"].floats()[:] = 9

    np.testing.assert_array_equal(open_tensors(path)["a"].floats(), VALUES)


def test_float16_is_widened_exactly(tmp_path: Path) -> None:
    save_file({"a": VALUES.astype(np.float16)}, tmp_path / "a.safetensors")

    widened = open_tensors(tmp_path / "a.safetensors")["a"].floats()

    assert widened.dtype == np.float32
    np.testing.assert_array_equal(widened, VALUES.astype(np.float16))


def test_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    upper_halves = np.array([0x3F80, 0xC000, 0x3E80], "<u2")  # 1, -2, 0.25
    header = {"a": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    write(tmp_path / "a.safetensors", header, upper_halves.tobytes())

    widened = open_tensors(tmp_path / "a.safetensors")["a"].floats()

    np.testing.assert_array_equal(widened, np.array([1, -2, 0.25], np.float32))


def test_data_at_an_odd_address_is_read_right(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    if len(json.dumps(header)) % 4 == 0:
        header = {"ab": header["a"]}
    write(tmp_path / "a.safetensors", header, VALUES.tobytes())

    (tensor,) = open_tensors(tmp_path / "a.safetensors").values()

    assert tensor.floats().flags.aligned
    np.testing.assert_array_equal(tensor.floats(), VALUES)


def test_a_type_that_is_no_weight_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"ids": np.arange(3)}, tmp_path / "a.safetensors")

    with pytest.raises(ModelLoadError, match=r"a\.safetensors: ids is I64"):
        open_tensors(tmp_path / "a.safetensors")["ids"].floats()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def with_a_huge_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def not_json(path: Path) -> None:
    path.write_bytes((4).to_bytes(8, "little") + b"none")


def out_of_bounds(path: Path) -> None:
    write(path, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"\0" * 8)


def of_another_size(path: Path) -> None:
    write(path, {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8)


def missing(path: Path) -> None:
    path.unlink()


def a_pointer_of_git_lfs(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        cut_in_the_header,
        emptied,
        longer,
        with_a_huge_header,
        not_json,
        out_of_bounds,
        of_another_size,
        missing,
        a_pointer_of_git_lfs,
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": VALUES}, path)
    damage(path)

    with pytest.raises(ModelLoadError, match=r"a\.safetensors cannot be read"):
        open_tensors(path)
