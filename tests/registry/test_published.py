"""The config.json of models that are built in, as published, says what their entries say.

`published.json` has what was found of them on pages of the Hub, and on which one: the model's own,
a copy's or a fine-tune's.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from emberd.backends.architectures.native import NATIVE, class_of, name_of, read_architecture
from emberd.backends.config import ModelConfig
from emberd.config.load import load_config

PUBLISHED: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text())


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_config_is_read_as_the_entry_says(name: str, tmp_path: Path) -> None:
    spec = load_config(environ={"EMBERD_HOME": str(tmp_path)}).catalog.get(name)
    config = ModelConfig(tmp_path / "config.json", PUBLISHED[name]["config"])

    found = read_architecture(config, backend="any", runs=NATIVE)

    assert name_of(config) == spec.architecture
    if spec.kind == "rerank":  # refused, were there not one label, of what the entry pools
        assert found.classifier(config, spec.pooling)[-1].outputs == spec.dimensions
    elif spec.kind == "sparse":
        head = found.masked_lm(config)
        assert (head.vocab_size, head.dense_bias) == (spec.dimensions, True)
    else:
        assert found.hidden_size == spec.dimensions
    assert spec.max_tokens and spec.max_tokens <= found.max_tokens
    assert spec.max_tokens <= (class_of(config).positions(config) or 0)
