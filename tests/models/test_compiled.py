"""Which files a compiled model depends on."""

import pytest

from emberd.hashing import FileHash
from emberd.models.compiled import compiled_key
from emberd.models.modules import TRANSFORMER_FILES
from emberd.registry.spec import ModelSpec, Source

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
