"""The identity of a vector space: what moves vectors changes it, and nothing else does."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emberd.dtypes import NUMPY, Dtype
from emberd.hashing import list_files
from emberd.models.files import hash_files
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.fingerprint import fingerprint, of_dtype, of_late
from emberd.spaces.options import SpaceOptions
from tests import model_folder

SPEC = ModelSpec(
    name="mine", sources=(Source(path="/m"),), dimensions=8, pooling="mean", precision="4bit",
    matryoshka=(4,), prompts={"query": "q: "},
)  # fmt: skip


def of(
    folder: Path,
    spec: ModelSpec = SPEC,
    *,
    max_tokens: int = 512,
    dimensions: int = 8,
    **options: Any,  # noqa: ANN401 - as `SpaceOptions.of` has them
) -> str:
    """Return the fingerprint of all files in a folder."""
    files = hash_files(folder, ["*"], {})
    space = SpaceOptions.of(spec, max_tokens=max_tokens, **options)
    return fingerprint(spec, files=files, options=space, dimensions=dimensions)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder.write(tmp_path / "model")


def test_it_is_the_same_for_the_same_model_elsewhere(folder: Path, tmp_path: Path) -> None:
    assert of(folder) == of(model_folder.write(tmp_path / "copy"))


def test_it_is_short_and_of_hex_digits(folder: Path) -> None:
    assert len(of(folder)) == 16
    assert int(of(folder), 16)


def test_it_is_the_same_in_every_release(folder: Path) -> None:
    assert of(folder) == "974cf9ec935f312d"  # stored vectors are known by it


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "f32"},
        {"pooling": "cls"},
        {"normalize": False},
        {"prompts": {"query": "q:"}},
        {"prompts": {"query": "q: ", "document": "d: "}},
        {"prompts": {"document": "q: "}},
        {"prompts": {}},
    ],
    ids=str,
)
def test_what_the_registry_says_of_the_vectors_changes_it(
    folder: Path, change: dict[str, Any]
) -> None:
    assert of(folder, replace(SPEC, **change)) != of(folder)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "2_Dense/model.safetensors",
        "2_Dense/config.json",
    ],
)
def test_a_byte_of_weights_tokenizer_or_config_changes_it(folder: Path, name: str) -> None:
    model_folder.write(folder, {"2_Dense/model.safetensors": b"w", "2_Dense/config.json": b"c"})
    before = of(folder)
    content = (folder / name).read_bytes()

    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    assert of(folder) != before


def test_the_limit_of_tokens_changes_it(folder: Path) -> None:
    assert of(folder, max_tokens=256) != of(folder)


def test_lower_casing_and_prompts_that_are_not_pooled_change_it(folder: Path) -> None:
    assert len({of(folder), of(folder, lower_case=True), of(folder, include_prompt=False)}) == 3


def test_a_norm_before_the_cut_changes_it_where_there_is_a_cut(folder: Path) -> None:
    normed = replace(SPEC, matryoshka_norm=True)

    assert of(folder, normed) == of(folder)
    assert of(folder, normed, dimensions=4) != of(folder, dimensions=4)


def test_options_that_move_no_vector_leave_it(folder: Path) -> None:
    bare = replace(SPEC, prompts={})

    assert of(folder, lower_case=False, include_prompt=True) == of(folder)
    assert of(folder, bare, include_prompt=False) == of(folder, bare)


def test_the_length_of_the_vectors_changes_it(folder: Path) -> None:
    assert of(folder, dimensions=4) != of(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "yours"},
        {"aliases": ("a", "b")},
        {"sources": (Source(hf="me/mine"),)},
        {"backend": "openvino"},
        {"compute": "f16"},
        {"idle_unload": 60.0},
        {"pinned": True},
        {"matryoshka": (4, 2)},  # which sizes are offered; the one that is given counts
        {"max_tokens": 512},  # said here or by the checkpoint
    ],
    ids=str,
)
def test_what_moves_no_vector_leaves_it(folder: Path, change: dict[str, Any]) -> None:
    assert of(folder, replace(SPEC, **change)) == of(folder)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "tokenizer_config.json",
        "1_Pooling/config.json",
        "modules.json",
        "sentence_bert_config.json",
        "vocab.txt",
    ],
)
def test_a_file_that_only_describes_leaves_it(folder: Path, name: str) -> None:
    before = of(folder)
    model_folder.write(folder, {name: b"changed"})

    assert of(folder) == before


def test_a_description_may_be_missing(folder: Path) -> None:
    before = of(folder)
    (folder / "1_Pooling" / "config.json").unlink()  # MLX conversions leave it out

    assert of(folder) == before


def test_files_are_listed_by_their_patterns_below_the_folder(folder: Path) -> None:
    assert list_files(folder, ["*.json", "model*.safetensors"]) == [
        "1_Pooling/config.json",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert list_files(folder, ["*_Pooling/config.json"]) == ["1_Pooling/config.json"]


def test_a_link_that_leads_nowhere_is_no_file(folder: Path) -> None:
    (folder / "modules.json").symlink_to(folder / "gone")

    assert "modules.json" not in hash_files(folder, ["*.json"], {})


def rewrite(file: Path) -> None:
    """Change the content, but neither size nor times."""
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def touch(file: Path) -> None:
    rewrite(file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def grow(file: Path) -> None:
    status = file.stat()
    file.write_bytes(file.read_bytes() + b"!")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_file(file: Path) -> None:
    status = file.stat()
    other = file.with_name("other")
    other.write_bytes(file.read_bytes()[::-1])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


def test_a_hash_is_reused_while_the_file_looks_the_same(folder: Path) -> None:
    known = hash_files(folder, ["*.safetensors"], {})
    rewrite(folder / "model.safetensors")

    assert hash_files(folder, ["*.safetensors"], known) == known  # so it was not read


@pytest.mark.parametrize("change", [touch, grow, replace_file])
def test_a_hash_is_made_anew_when_mtime_size_or_inode_differ(
    folder: Path, change: Callable[[Path], None]
) -> None:
    known = hash_files(folder, ["*.safetensors"], {})
    change(folder / "model.safetensors")

    again = hash_files(folder, ["*.safetensors"], known)
    assert again["model.safetensors"].sha256 != known["model.safetensors"].sha256
    assert again == hash_files(folder, ["*.safetensors"], {})


@pytest.mark.parametrize(
    "name", ["idf.json", "sparse_linear.safetensors", "query_0_SparseStaticEmbedding/w.safetensors"]
)
def test_files_of_sparse_models_count_for_these_alone(folder: Path, name: str) -> None:
    sparse = replace(SPEC, kind="sparse", pooling="max", normalize=False, matryoshka=(), prompts={})
    before = of(folder), of(folder, sparse)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"new")

    assert of(folder) == before[0]
    assert of(folder, sparse) != before[1]


def test_each_dtype_is_a_space_of_its_own_made_of_the_first() -> None:
    space = "0123456789abcdef"

    named = [of_dtype(space, dtype, 0.25) for dtype in NUMPY]
    others = [of_dtype("fedcba9876543210", dtype, 0.25) for dtype in NUMPY]

    assert of_dtype(space, "float", 0.0) == space
    assert len({*named, *others}) == 2 * len(NUMPY)
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in named)


@pytest.mark.parametrize(
    ("dtype", "counts"), [("int8", True), ("uint8", True), ("float16", False), ("binary", False)]
)
def test_the_step_counts_where_there_is_one(dtype: Dtype, *, counts: bool) -> None:
    assert (of_dtype("aa", dtype, 0.25) != of_dtype("aa", dtype, 0.5)) == counts


def test_that_of_a_dtype_is_the_same_in_every_release() -> None:
    assert of_dtype("0123456789abcdef", "int8", 0.001953125) == "0c587f97fdcce47e"
    assert of_dtype("0123456789abcdef", "binary", 0.0) == "283f234386e5267a"


def test_that_of_late_chunks_is_another_and_the_same_in_every_release() -> None:
    space = "0123456789abcdef"
    others = [space, *(of_dtype(space, dtype, 0.25) for dtype in NUMPY)]

    assert of_late(space) not in others
    assert of_late(space) != of_late("fedcba9876543210")
    assert of_late(space) == "d121aa8dcc6c9ea8"
