"""Which files a compiled model depends on, and which of those that are kept are needed."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.hashing import FileHash
from emberd.models.compiled import compiled_key, unused
from emberd.models.modules import TRANSFORMER_FILES
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from tests.serving import age

SPEC = ModelSpec(name="mine", sources=(Source(hf="me/mine"),), dimensions=8, pooling="mean")
NAMES = (
    "config.json", "model.safetensors", "modules.json", "1_Pooling/config.json", "tokenizer.json",
    "tokenizer_config.json", "sentence_bert_config.json", "2_Dense/config.json", "README.md",
)  # fmt: skip
FILES = {name: FileHash(1, 1, 1, f"{at}" * 64) for at, name in enumerate(NAMES)}
CHANGED = FileHash(1, 1, 1, "f" * 64)


def test_the_key_stays_as_it_was_or_every_model_is_compiled_again() -> None:
    assert compiled_key(SPEC, FILES) == "6280375be228ddd9"


@pytest.mark.parametrize("name", ["tokenizer.json", "1_Pooling/config.json", *TRANSFORMER_FILES])
def test_a_file_that_the_graph_does_not_depend_on_leaves_the_key(name: str) -> None:
    assert compiled_key(SPEC, {**FILES, name: CHANGED}) == compiled_key(SPEC, FILES)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "modules.json", "2_Dense/config.json"]
)
def test_a_file_that_the_graph_depends_on_changes_the_key(name: str) -> None:
    assert compiled_key(SPEC, {**FILES, name: CHANGED}) != compiled_key(SPEC, FILES)


def entry(kept: tuple[str, ...]) -> LockEntry:
    return LockEntry(source="hf:me/mine", folder="", files=FILES, backend="b", kept=kept)


def compile_(cache: Path, *names: str, seconds_ago: float = 3600) -> Path:
    """Put files into the folder of the compiled model; return it."""
    folder = cache / "b" / compiled_key(SPEC, FILES)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (time.time() - seconds_ago,) * 2)
    return folder


def test_what_an_earlier_compute_left_is_unused(tmp_path: Path) -> None:
    folder = compile_(tmp_path, "f32", "bf16", "old")

    assert unused(tmp_path, [(SPEC, entry(("bf16",)))]) == [folder / "f32", folder / "old"]
    both = [(SPEC, entry(("bf16",))), (replace(SPEC, name="twin"), entry(("f32",)))]
    assert unused(tmp_path, both) == [folder / "old"]


def test_as_long_as_one_model_has_not_said_what_it_needs_all_is_kept(tmp_path: Path) -> None:
    compile_(tmp_path, "f32", "bf16")
    models = [(SPEC, entry(("bf16",))), (replace(SPEC, name="twin"), entry(()))]

    assert unused(tmp_path, models) == []


def test_what_a_start_has_just_made_is_spared(tmp_path: Path) -> None:
    compile_(tmp_path, "f32")
    compile_(tmp_path, "bf16", seconds_ago=1)
    (stray := tmp_path / "b" / "stray").mkdir()

    models = [(SPEC, entry(("f32",)))]

    assert unused(tmp_path, models) == []
    age(tmp_path / "b" / "stray")
    assert unused(tmp_path, models) == [stray]
    (stray / "it").touch()
    assert unused(tmp_path, models) == []
