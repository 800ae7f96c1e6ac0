"""A model that scores pairs becomes an entry of kind rerank, or is refused with what to do."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from emberd.config.load import validated
from emberd.errors import BadOptionError, ModelLoadError
from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from emberd.proposal.lines import Chosen
from tests.proposal.folders import described, proposed, write
from tests.rerankers import RERANKERS

SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
BASE = "sentence_transformers.base.modules.transformer.Transformer"
SAVED: dict[str, Any] = {  # what `CrossEncoder.save_pretrained` of sentence-transformers 6.2 writes
    "modules.json": [{"idx": 0, "name": "0", "path": "", "type": BASE}],
    "config_sentence_transformers.json": {
        "activation_fn": "torch.nn.modules.activation.Sigmoid",
        "default_prompt_name": None,
        "model_type": "CrossEncoder",
        "prompts": {},
    },
    "sentence_bert_config.json": {
        "transformer_task": "sequence-classification",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
        "module_output_name": "scores",
    },
}


def copied(name: str, folder: Path, files: dict[str, Any] | None = None, **config: Any) -> Path:  # noqa: ANN401
    """Copy one of the references, with other files, and values in config.json."""
    shutil.copytree(RERANKERS / name, folder)
    values = json.loads((folder / "config.json").read_text()) | config
    kept = {key: value for key, value in values.items() if value is not None}
    return write(folder, {"config.json": kept, **(files or {})})


@pytest.mark.parametrize("name", sorted(path.name for path in RERANKERS.iterdir()))
@pytest.mark.parametrize("files", [{}, SAVED], ids=["config.json alone", "saved by version 6.2"])
def test_every_reference_is_proposed(name: str, files: dict[str, Any], tmp_path: Path) -> None:
    folder = copied(name, tmp_path / name, files)

    found = proposed(folder)

    is_modern = name == "modernbert"
    assert found.entry == {
        "sources": [{"path": str(folder)}],
        "kind": "rerank",
        "pooling": "mean" if is_modern else "cls",
        "max_tokens": json.loads((folder / "reference.json").read_text())["max_tokens"],
        "precision": "f32",
        "architecture": name,
    }
    file, key = (
        ("config_sentence_transformers.json", "model_type")
        if files
        else ("config.json", "architectures")
    )
    assert found.origins["kind"] == f"{file} ({key})"
    by = "config.json (classifier_pooling)" if is_modern else "what its classifier reads"
    assert found.origins["pooling"] == by
    assert found.open == ()
    spec = validated(tmp_path / "config.yaml", "mine", found.entry)
    assert differences(read_folder(folder), spec) == []


@pytest.mark.parametrize(
    ("files", "config"),
    [
        ({"config_sentence_transformers.json": {"activation_fn": "torch.nn.Identity"}}, {}),
        ({}, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}),
        ({}, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
    ],
)
def test_logits_that_are_reported_as_they_are_get_a_note(
    files: dict[str, Any], config: dict[str, Any], tmp_path: Path
) -> None:
    plain = copied("bert", tmp_path / "plain")
    folder = copied("bert", tmp_path / "logits", files, **config)

    assert not any("logits" in note for note in proposed(plain).notes)
    assert any("logits" in note and "raw_scores" in note for note in proposed(folder).notes)


def test_a_classifier_that_was_made_an_encoder_embeds(tmp_path: Path) -> None:
    pooled = described(tmp_path / "pooled", architectures=["BertForSequenceClassification"])
    saved = {"config_sentence_transformers.json": {"model_type": "SentenceTransformer"}}
    encoder = copied("bert", tmp_path / "saved", saved)

    assert "kind" not in proposed(pooled).entry
    assert "kind" not in proposed(encoder, Chosen(pooling="cls")).entry


def test_the_user_may_say_which_it_is_where_only_its_class_does(tmp_path: Path) -> None:
    folder = copied("bert", tmp_path / "bert", architectures=["BertModel"])
    classifier = copied("bert", tmp_path / "classifier")
    saved = copied("bert", tmp_path / "saved", SAVED)

    assert proposed(folder, Chosen(kind="rerank")).origins["kind"] == "--kind"
    assert "kind" not in proposed(classifier, Chosen(kind="embed")).entry
    with pytest.raises(BadOptionError, match=r"--kind embed contradicts .*says CrossEncoder"):
        proposed(saved, Chosen(kind="embed"))


@pytest.mark.parametrize(
    ("files", "config", "said"),
    [
        ({}, {"id2label": {"0": "no", "1": "yes"}}, "tells 2 labels apart.*one label"),
        ({}, {"id2label": None, "label2id": None}, "does not say how many labels.*id2label"),
        (
            {"modules.json": [*SAVED["modules.json"], {"path": "1", "type": SCORE}]},
            {},
            "lists LogitScore.*configuration.md",
        ),
        (
            {
                "config_sentence_transformers.json": {
                    "prompts": {"query": "q: "},
                    "default_prompt_name": "query",
                }
            },
            {},
            "default prompt.*without a prompt",
        ),
        ({}, {"model_type": "odd"}, "no backend here runs the architecture 'odd'"),
        ({}, {"auto_map": {"AutoModel": "x.Odd"}, "model_type": "odd"}, "Python code"),
    ],
)  # fmt: skip
def test_what_would_score_wrongly_is_refused(
    files: dict[str, Any], config: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = copied("bert", tmp_path / "bert", files, **config)

    with pytest.raises(ModelLoadError) as refused:
        proposed(folder)

    told = f"{refused.value.message} {refused.value.hint}"
    assert re.search(said, told), told
    assert "onnx" not in told  # which only embeds


def test_an_architecture_without_a_classifier_is_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"dim": 64, "n_heads": 4, "n_layers": 2, "hidden_dim": 64}
    folder = copied("bert", tmp_path / "distilbert", model_type="distilbert", **sizes)

    with pytest.raises(ModelLoadError, match="no re-rankers of model_type 'distilbert'"):
        proposed(folder)


def test_another_pooling_than_the_classifiers_is_refused(tmp_path: Path) -> None:
    folder = copied("modernbert", tmp_path / "modernbert")

    with pytest.raises(BadOptionError, match=r"--pooling cls contradicts .*reads mean"):
        proposed(folder, Chosen(pooling="cls"))
    assert proposed(folder, Chosen(pooling="mean")).entry["pooling"] == "mean"


def test_a_pooling_that_emberd_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = copied("modernbert", tmp_path / "modernbert", classifier_pooling="max")

    with pytest.raises(ModelLoadError, match="classifier_pooling 'max'"):
        proposed(folder)
