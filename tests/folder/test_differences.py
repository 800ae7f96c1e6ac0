"""Where an entry disagrees with its model's folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from tests.folder.entries import entry, said
from tests.folders import BERT, Change, Folder

DESCRIBED = "config_sentence_transformers.json"


def test_an_entry_that_cuts_elsewhere_is_told_what_to_write(tmp_path: Path) -> None:
    folder = Folder(files={BERT: {"max_seq_length": 16}}).write(tmp_path)
    (difference,) = differences(read_folder(folder), entry(folder, max_tokens=32))

    assert difference.line == "max_tokens: 16"
    assert "32 tokens" in difference.message
    assert f"at 16, as {BERT} (max_seq_length) says" in difference.message
    assert "models.mine: max_tokens: 16" in difference.told("mine")
    assert said(folder) == said(folder, max_tokens=16) == []


@pytest.mark.parametrize(
    ("described", "keys", "line"),
    [
        ({"prompts": {"query": "q: "}}, {}, 'prompts: {query: "q: "}'),
        (
            {"prompts": {"query": "q: ", "passage": "p: ", "other": "o"}},
            {},
            'prompts: {query: "q: ", document: "p: "}',
        ),
        (
            {"prompts": {"query": 'say "é"\n: ', "document": ""}},
            {},
            'prompts: {query: "say \\"é\\"\\n: "}',
        ),
        (
            {"prompts": {"query": "q: "}},
            {"prompts": {"query": "Q: ", "document": "D: "}},
            'prompts: {query: "q: ", document: "D: "}',
        ),
        (
            {"prompts": {"sts": "s: "}, "default_prompt_name": "sts"},
            {},
            'prompts: {document: "s: "}',
        ),
        (
            {"prompts": {"query": "q: "}, "default_prompt_name": "query"},
            {},
            'prompts: {query: "q: "}',
        ),
    ],
    ids=str,
)
def test_prompts_that_the_entry_lacks_are_told_as_yaml(
    described: Change, keys: dict[str, Any], line: str, tmp_path: Path
) -> None:
    import yaml

    folder = Folder(files={DESCRIBED: described}).write(tmp_path)

    assert said(folder, **keys) == [("prompts", line)]
    assert said(folder, **yaml.safe_load(line)) == []  # which settles it
    (difference,) = differences(read_folder(folder), entry(folder, **keys))
    assert ("before every text" in difference.message) == ("default_prompt_name" in described)


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"prompts": {"query": "", "document": ""}, "default_prompt_name": None},
        {"prompts": {"query": None}},
        {"prompts": {"query": "q: "}, "similarity_fn_name": "cosine"},
    ],
    ids=str,
)
def test_no_prompt_or_the_same_is_no_difference(described: Change, tmp_path: Path) -> None:
    folder = Folder(files={DESCRIBED: described}).write(tmp_path)

    assert said(folder, prompts={"query": "q: "}) == []


def test_lengths_that_the_entry_has_otherwise_are_told(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path)
    modules = json.loads((folder / "modules.json").read_bytes())

    assert said(folder, normalize=False) == [("normalize", "normalize: true")]
    (folder / "modules.json").write_text(json.dumps(modules[:-1]))
    assert said(folder) == [("normalize", "normalize: false")]
    assert said(folder, normalize=False) == []
