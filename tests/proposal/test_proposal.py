"""What a model's files say becomes an entry, line by line; the rest is never guessed."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.config.load import validated
from emberd.errors import BadOptionError, ModelLoadError
from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from emberd.proposal.lines import Chosen
from emberd.proposal.proposal import short_name
from tests.proposal.folders import MODULES, ST, described, proposed, write

TINY = Path(__file__).parent.parent / "reference" / "tiny"


def test_every_line_names_the_file_that_it_came_from(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny")

    found = proposed(folder)

    assert found.entry == {
        "sources": [{"path": str(folder)}],
        "dimensions": 64,
        "pooling": "mean",
        "normalize": True,
        "max_tokens": 32,
        "precision": "f32",
        "architecture": "bert",
        "licence": "apache-2.0",
    }
    assert found.origins == {
        "sources": "the folder that was read",
        "dimensions": "config.json (hidden_size)",
        "pooling": "1_Pooling/config.json",
        "normalize": "modules.json (lists Normalize)",
        "max_tokens": "sentence_bert_config.json (max_seq_length)",
        "precision": "emberd's default: as exact as the file",
        "architecture": "config.json (model_type)",
        "licence": "README.md (license)",
    }
    assert (found.card.languages, found.card.base_models) == (("en", "no"), ("me/base",))
    assert found.open == ()


def test_the_entry_agrees_with_its_folder(tmp_path: Path) -> None:
    """What `config check` and `verify` would say of it: nothing."""
    folder = described(tmp_path / "tiny")
    write(
        folder,
        {
            "modules.json": MODULES[:2],
            "config_sentence_transformers.json": {"prompts": {"query": "q: ", "passage": "p: "}},
        },
    )

    entry = proposed(folder).entry

    assert entry["normalize"] is False
    assert entry["prompts"] == {"query": "q: ", "document": "p: "}
    spec = validated(tmp_path / "config.yaml", "mine", entry)
    assert differences(read_folder(folder), spec) == []


@pytest.mark.parametrize("folder", sorted(TINY.iterdir()), ids=lambda folder: folder.name)
def test_every_architecture_is_described_as_its_reference_vectors_are(folder: Path) -> None:
    try:
        found = proposed(folder)
    except ModelLoadError as error:
        if "MLX cannot be imported" in (error.hint or ""):
            pytest.skip("only mlx runs it, which is not installed")
        raise

    spec = validated(folder / "config.yaml", "mine", found.entry)
    with np.load(folder / "reference.npz") as reference:
        assert reference[spec.pooling].shape[-1] == spec.dimensions
    assert folder.name.removesuffix("-gated").removesuffix("-code") == spec.architecture
    assert found.open == ()
    assert differences(read_folder(folder), spec) == []


def test_pooling_and_limit_stay_open_where_no_file_states_them(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny", max_position_embeddings=48)
    for name in ("1_Pooling/config.json", "modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())

    open_pooling = proposed(folder)
    stated = proposed(folder, Chosen(pooling="cls"))

    assert [(each.key, each.option) for each in open_pooling.open] == [
        ("pooling", "--pooling mean|cls|last")
    ]
    assert "pooling" not in open_pooling.entry
    assert "# pooling: ?" in open_pooling.as_yaml()
    assert "normalize" not in stated.entry
    assert (stated.entry["pooling"], stated.origins["pooling"]) == ("cls", "--pooling")
    assert stated.entry["max_tokens"] == config["max_position_embeddings"]
    assert "max_position_embeddings" in stated.origins["max_tokens"]


@pytest.mark.parametrize(
    ("files", "note"),
    [
        (
            {"tokenizer_config.json": {"model_max_length": 48}},
            "tokenizer_config.json (model_max_length) says 48 tokens; sentence-transformers cuts"
            " texts at 32",
        ),
        (
            {"sentence_bert_config.json": {"max_seq_length": 512}},
            "sentence_bert_config.json (max_seq_length) says 512 tokens; sentence-transformers"
            " cuts texts at 48",
        ),
        (
            {
                "1_Pooling/config.json": {
                    "word_embedding_dimension": 99,
                    "pooling_mode_mean_tokens": True,
                }
            },
            "1_Pooling/config.json (word_embedding_dimension) says 99, and config.json"
            " (hidden_size) 64.",
        ),
        (
            {
                "config_sentence_transformers.json": {
                    "prompts": {"query": "q: ", "sts": "s: "},
                    "default_prompt_name": "query",
                }
            },
            "has prompts that emberd does not use: sts.",
        ),
        ({"README.md": "# no metadata\n"}, "No licence is stated"),
        ({"README.md": "---\nlicense: [\n---\n"}, "the metadata in README.md cannot be read"),
    ],
)
def test_what_files_say_differently_or_not_at_all_is_noted(
    tmp_path: Path, files: dict[str, object], note: str
) -> None:
    folder = write(described(tmp_path / "tiny"), files)

    assert any(note in each for each in proposed(folder).notes)


@pytest.mark.parametrize(
    ("config", "precision", "by"),
    [
        ({"torch_dtype": "bfloat16"}, "bf16", "config.json (dtype)"),
        ({"dtype": "bfloat16"}, "bf16", "config.json (dtype)"),
        ({"torch_dtype": "float16"}, "f32", "emberd's default: as exact as the file"),
        ({"quantization": {"bits": 8, "group_size": 64}}, "8bit", "config.json (quantization)"),
    ],
)
def test_the_precision_is_that_of_the_published_weights(
    tmp_path: Path, config: dict[str, object], precision: str, by: str
) -> None:
    found = proposed(described(tmp_path / "tiny", **config))

    assert (found.entry["precision"], found.origins["precision"]) == (precision, by)


def test_a_dense_head_decides_the_dimensions(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny")
    head = {"in_features": 64, "out_features": 16, "activation_function": "torch.nn.Tanh"}
    steps = [*MODULES[:2], {"type": f"{ST}.Dense", "path": "2_Dense"}]
    write(folder, {"modules.json": steps, "2_Dense/config.json": head})

    found = proposed(folder)

    assert found.entry["dimensions"] == 16
    assert found.origins["dimensions"] == "2_Dense/config.json (out_features)"


@pytest.mark.parametrize("name", ["e5-small-v2", "E5-Small-v2-4bit"])
def test_prompts_that_no_file_states_come_from_the_table_and_say_so(
    tmp_path: Path, name: str
) -> None:
    found = proposed(described(tmp_path / name))

    assert found.entry["prompts"] == {"query": "query: ", "document": "passage: "}
    assert "emberd's table of families (e5)" in found.origins["prompts"]


@pytest.mark.parametrize("name", ["e5-small-v2-finetuned", "my-e5-small-v2", "tiny"])
def test_other_models_get_no_prompts_and_a_note(tmp_path: Path, name: str) -> None:
    found = proposed(described(tmp_path / name))

    assert "prompts" not in found.entry
    assert any("does not know this model" in note for note in found.notes)


def test_the_files_own_prompts_count_more_than_the_table(tmp_path: Path) -> None:
    folder = described(tmp_path / "e5-small-v2")
    write(folder, {"config_sentence_transformers.json": {"prompts": {"query": "Q "}}})

    found = proposed(folder)

    assert found.entry["prompts"] == {"query": "Q "}
    assert found.origins["prompts"] == "config_sentence_transformers.json (prompts)"
    assert any("the file counts" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "said", "hint"),
    [
        ({"model_type": "deberta"}, "architecture 'deberta'", "Openvino runs bert"),
        ({"model_type": "deberta"}, "architecture 'deberta'", "a file onnx/model.onnx"),
        (
            {"model_type": "odd", "auto_map": {"AutoModel": "modeling.OddModel\x1b"}},
            "code that comes with the model (modeling.OddModel)",
            "Openvino runs bert",
        ),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type is 'relative_key'",
            "",
        ),
        ({"quantization": {"bits": 6, "group_size": 64}}, "6-bit weights", "4 or 8 bits"),
    ],
)
def test_what_would_not_load_is_refused_now(
    tmp_path: Path, config: dict[str, object], said: str, hint: str
) -> None:
    folder = described(tmp_path / "tiny", **config)

    with pytest.raises(ModelLoadError) as caught:
        proposed(folder)

    assert str(folder / "config.json") in caught.value.message
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


def test_another_backend_is_named_if_the_usual_one_does_not_run_it(tmp_path: Path) -> None:
    only_mlx = sorted(MLXBackend.architectures - OpenVINOBackend.architectures)
    if not only_mlx:
        pytest.skip("openvino runs everything that mlx does")
    folder = described(tmp_path / "tiny", model_type=only_mlx[0])

    if importlib.util.find_spec("mlx"):
        found = proposed(folder)
        assert found.entry["backend"] == "mlx"
        assert found.origins["backend"] == f"openvino does not run {only_mlx[0]}"
    else:
        with pytest.raises(ModelLoadError) as caught:
            proposed(folder)
        assert "Backend mlx runs it, but: MLX cannot be imported" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("config", "has_safetensors", "why"),
    [
        ({"model_type": "deberta"}, True, "openvino does not run deberta"),
        ({"model_type": "odd", "auto_map": {"A": "b.C"}}, False, "openvino does not run odd"),
        ({"position_embedding_type": "relative_key"}, True, "openvino does not run this bert"),
        ({"torch_dtype": "bfloat16"}, False, "no weights for openvino are there"),
        ({}, True, None),
    ],
    ids=["no backend", "code", "a kind of bert", "no safetensors", "both"],
)
def test_an_onnx_file_is_run_if_nothing_else_can_be(
    tmp_path: Path, config: dict[str, object], has_safetensors: bool, why: str | None
) -> None:
    folder = write(described(tmp_path / "tiny", **config), {"onnx/model.onnx": "graph"})
    if not has_safetensors:
        (folder / "model.safetensors").unlink()

    found = proposed(folder)

    assert found.origins.get("backend") == (why and f"onnx/model.onnx; {why}")
    assert found.entry.get("backend") == (why and "onnx")
    assert found.entry["precision"] == "f32"
    assert (found.entry["dimensions"], found.entry["max_tokens"]) == (64, 32)
    assert any("runs odd without it" in note for note in found.notes) == ("auto_map" in config)
    if why:
        assert "onnx/model.onnx" in found.origins["precision"]
        with pytest.raises(BadOptionError, match="taken as they are"):
            proposed(folder, Chosen(precision="4bit"))


@pytest.mark.parametrize("key", ["d_model", "dim", "n_embd"])
def test_the_size_of_vectors_has_other_names_elsewhere(tmp_path: Path, key: str) -> None:
    folder = write(described(tmp_path / "tiny", model_type="odd"), {"onnx/model.onnx": "graph"})
    config = json.loads((folder / "config.json").read_text())
    write(folder, {"config.json": {key: config.pop("hidden_size"), **config}})

    found = proposed(folder)

    assert (found.entry["dimensions"], found.origins["dimensions"]) == (64, f"config.json ({key})")


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelLoadError, match=r"has no model\.safetensors"):
        proposed(folder)


def test_code_for_an_architecture_that_emberd_has_itself_is_not_needed(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny", auto_map={"AutoModel": "modeling.Mine"})

    found = proposed(folder)

    assert found.entry["architecture"] == "bert"
    assert any("runs bert without it" in note for note in found.notes)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"modules.json": [{"type": "custom_st.Transformer", "path": ""}]},
            "code that comes with the model (custom_st.Transformer)",
        ),
        (
            {"1_Pooling/config.json": {"pooling_mode": ["mean", "max"]}},
            "says pooling max + mean, which emberd does not have",
        ),
        ({"1_Pooling/config.json": {"pooling_mode": "weightedmean"}}, "pooling weightedmean"),
        ({"config.json": "{"}, "config.json cannot be read"),
    ],
)
def test_steps_that_emberd_does_not_have_are_refused(
    tmp_path: Path, files: dict[str, object], said: str
) -> None:
    folder = write(described(tmp_path / "tiny"), files)

    with pytest.raises(ModelLoadError, match=re.escape(said)):
        proposed(folder)


def test_what_the_user_states_must_fit_the_files(tmp_path: Path) -> None:
    folder = described(tmp_path / "tiny")

    with pytest.raises(BadOptionError, match="contradicts"):
        proposed(folder, Chosen(pooling="cls"))
    with pytest.raises(BadOptionError, match="48 positions"):
        proposed(folder, Chosen(max_tokens=49))
    stated = proposed(folder, Chosen(max_tokens=48, precision="4bit"))

    assert (stated.entry["max_tokens"], stated.origins["max_tokens"]) == (48, "--max-tokens")
    assert (stated.entry["precision"], stated.origins["precision"]) == ("4bit", "--precision")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("BAAI/bge-small-en-v1.5", "bge-small-en-v1.5"),
        ("me/Some_Model", "some_model"),
        ("my model (2)", "my-model-2"),
        ("...", "model"),
    ],
)
def test_a_short_name_is_made_of_the_last_part(label: str, name: str) -> None:
    assert short_name(label) == name
