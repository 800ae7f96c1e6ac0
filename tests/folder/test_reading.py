"""What a folder says about itself; odd and incomplete ones are refused."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from emberd.errors import ModelLoadError
from emberd.folder.reading import read_folder
from emberd.models.local import lacks
from emberd.models.sources import how_to_get, locate
from tests.folder.entries import entry
from tests.folders import BERT, GONE, POOLING, TOKENIZER, Change, Folder

DESCRIBED = "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, 512),
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        (
            {"model_type": "modernbert", "max_position_embeddings": 8192, "pad_token_id": 50283},
            8192,
        ),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, 8192),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 7}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 3}, 510),
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "t5", "n_positions": 130}, 130),
        ({"model_type": "t5"}, 512),
        ({"max_position_embeddings": 77}, 77),
        ({"n_positions": 8192}, 8192),
        ({"n_positions": 8192, "max_position_embeddings": 2048}, 8192),
        ({"n_positions": None, "max_position_embeddings": 2048}, 2048),
        ({"max_position_embeddings": -1}, None),
        ({"model_type": "bert"}, None),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": "many"}, None),
    ],
)
def test_the_checkpoint_says_how_many_positions_it_has(
    tmp_path: Path, config: object, positions: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))

    assert read_folder(tmp_path).positions == positions


def test_a_folder_that_says_nothing_is_cut_nowhere(tmp_path: Path) -> None:
    found = read_folder(tmp_path)

    assert (found.positions, found.limit, found.vocab_size, found.normalizer) == (None,) * 4
    assert (found.lower_case, found.include_prompt, found.normalizes) == (False, True, None)
    with pytest.raises(ModelLoadError, match="Neither the registry nor the checkpoint"):
        found.max_tokens(entry(tmp_path))


@pytest.mark.parametrize(
    ("files", "limit", "by"),
    [
        ({BERT: {"max_seq_length": 16}}, 16, f"{BERT} (max_seq_length)"),
        ({BERT: {"max_seq_length": 16.0}}, 16, f"{BERT} (max_seq_length)"),
        ({BERT: {"max_seq_length": 4000}}, 40, "config.json (max_position_embeddings)"),
        ({BERT: None}, 40, f"{TOKENIZER} (model_max_length)"),
        ({BERT: None, TOKENIZER: {"model_max_length": 16}}, 16, f"{TOKENIZER} (model_max_length)"),
        (
            {BERT: None, TOKENIZER: {"model_max_length": 10**30}},
            40,
            "config.json (max_position_embeddings)",
        ),
        ({BERT: None, TOKENIZER: None}, 40, "config.json (max_position_embeddings)"),
        (
            {BERT: {"processor_kwargs": {"model_max_length": 16}, "max_seq_length": 24}},
            16,
            f"{BERT} (model_max_length)",
        ),
        (
            {BERT: {"max_seq_length": 16}, "config.json": {"max_position_embeddings": GONE}},
            16,
            f"{BERT} (max_seq_length)",
        ),
    ],
    ids=str,
)
def test_one_file_says_where_texts_are_cut(
    files: Mapping[str, Change | None], limit: int, by: str, tmp_path: Path
) -> None:
    found = read_folder(Folder(files=files).write(tmp_path))

    assert (found.limit, found.limit_by) == (limit, by)
    assert found.max_tokens(entry(tmp_path)) == limit
    assert found.max_tokens(entry(tmp_path, max_tokens=9)) == 9  # an entry that states one wins


def test_the_truncation_of_tokenizer_json_is_no_limit(tmp_path: Path) -> None:
    cut = {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}

    assert (
        read_folder(Folder(files={"tokenizer.json": {"truncation": cut}}).write(tmp_path)).limit
        == 40
    )


@pytest.mark.parametrize("value", [0, -1, 2, "16", True, [], float("nan")], ids=str)
@pytest.mark.parametrize(
    ("file", "key"), [(BERT, "max_seq_length"), (TOKENIZER, "model_max_length")]
)
def test_a_length_that_is_none_is_refused_by_file_and_key(
    file: str, key: str, value: object, tmp_path: Path
) -> None:
    others: dict[str, Change | None] = {BERT: None} if file == TOKENIZER else {}
    folder = Folder(files={**others, file: {key: value}})

    with pytest.raises(ModelLoadError, match=key) as told:
        read_folder(folder.write(tmp_path))
    assert str(tmp_path / file) in told.value.message
    assert told.value.hint


@pytest.mark.parametrize(
    "name",
    [
        BERT, TOKENIZER, DESCRIBED, "modules.json", POOLING, "config.json",
        "sentence_albert_config.json",
    ],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"[1", b"\xff\xfe", b"7"])
def test_a_damaged_file_is_named_with_the_cure(name: str, content: bytes, tmp_path: Path) -> None:
    folder = Folder(files={BERT: None}).write(tmp_path)
    (folder / name).write_bytes(content)

    with pytest.raises(ModelLoadError) as told:
        read_folder(folder)
    assert str(folder / name) in told.value.message
    assert told.value.hint


def test_a_tokenizer_that_cuts_the_beginning_off_is_refused(tmp_path: Path) -> None:
    folder = Folder(files={TOKENIZER: {"truncation_side": "left"}}).write(tmp_path)

    with pytest.raises(ModelLoadError, match=r"tokenizer_config\.json .*truncation_side 'left'"):
        read_folder(folder)


# A folder of the user's that is no whole model says which file it lacks, and what to do.


def without(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).unlink()
    return folder


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_says_which(name: str, tmp_path: Path) -> None:
    folder = without(Folder().write(tmp_path / "model"), name)
    spec = entry(folder)

    with pytest.raises(ModelLoadError, match=rf"has no {name}") as told:
        locate(spec, hub=tmp_path, files=["*"])
    assert str(folder) in told.value.message
    assert how_to_get(spec) == told.value.hint


def test_a_folder_with_another_tokenizer_says_how_to_make_ours(tmp_path: Path) -> None:
    folder = without(Folder().write(tmp_path / "my model's"), "tokenizer.json")
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n")

    with pytest.raises(ModelLoadError, match=r"has no tokenizer\.json, only vocab\.txt") as told:
        locate(entry(folder), hub=tmp_path, files=["*"])
    command = shlex.split((told.value.hint or "").split("`")[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "command", "exec")
    assert command[2].count(repr(str(folder))) == 2


def test_an_encoder_in_a_folder_of_its_own_says_what_to_move(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path / "model")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (folder / name).rename(inner / name)
    modules = json.loads((folder / "modules.json").read_bytes())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ModelLoadError, match=r"has its encoder in 0_Transformer") as told:
        locate(entry(folder), hub=tmp_path, files=["*"])
    assert "Move the files" in (told.value.hint or "")
    # Also where there is another model beside modules.json, which would be taken for it.
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_bytes((inner / name).read_bytes())
    assert lacks(folder) is None
    with pytest.raises(ModelLoadError, match=r"has its encoder in 0_Transformer"):
        read_folder(folder)


def test_a_folder_that_lacks_a_part_of_its_weights_names_it(tmp_path: Path) -> None:
    folder = without(Folder().write(tmp_path / "model"), "model.safetensors")
    part = "model-00001-of-00001.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))

    with pytest.raises(ModelLoadError, match=part):
        locate(entry(folder), hub=tmp_path, files=["*"])
