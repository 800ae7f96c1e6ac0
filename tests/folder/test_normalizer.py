"""The normalizer in a tokenizer.json."""

from pathlib import Path

import pytest

from emberd.folder.normalizer import read_normalizer


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"version":"1.0","normalizer":{"type":"Lowercase"},"model":{', {"type": "Lowercase"}),
        ('{"normalizer" : null , "model": {', None),
        (
            '{ "added_tokens": [{"a": "\\"normalizer\\": 1"}], "normalizer":\n{"a": 1}',
            {"a": 1},
        ),
        ('{"model": {"vocab": {"normalizer": 7}}, "normalizer": {"b": 2}}', {"b": 2}),
        ('{"model": {}}', None),
    ],
)
def test_a_normalizer_is_read_without_the_vocabulary(
    content: str, found: object, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(content)

    assert read_normalizer(tmp_path / "tokenizer.json") == found
