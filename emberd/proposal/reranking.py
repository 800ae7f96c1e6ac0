"""Re-rankers among the models that somebody adds: what says that it is one, and its own lines.

sentence-transformers 6.2 says so in a file beside the model; otherwise config.json alone tells.
"""

from collections.abc import Iterator
from pathlib import Path

from emberd.backends.architectures.native import class_of
from emberd.backends.config import ModelConfig
from emberd.errors import BadOptionError, ModelLoadError
from emberd.folder.reading import Folder
from emberd.models.json_files import read_optional
from emberd.models.modules import read_pooling
from emberd.proposal.lines import PROMPTS_FILE as DESCRIPTION
from emberd.proposal.lines import Finding, Line
from emberd.proposal.subject import OwnLines, Subject
from emberd.registry.spec import POOLINGS, Kind, Pooling
from emberd.units import format_plain

_IDENTITY = "Identity"


def said_by(folder: Path, config: ModelConfig, chosen: Kind | None) -> str | None:
    """Return what says that the model is a re-ranker; None if it is none.

    A classifier with a Pooling step, or that sentence-transformers has saved as another model, was
    turned into an encoder.

    Raises:
        BadOptionError: what the user chose contradicts a file.
    """
    saved_as = read_optional(folder / DESCRIPTION).get("model_type")
    if saved_as == "CrossEncoder":
        if chosen not in (None, "rerank"):
            raise BadOptionError(
                f"--kind {chosen} contradicts {folder / DESCRIPTION}, which says CrossEncoder.",
                hint="Leave the option out.",
            )
        return f"{DESCRIPTION} (model_type)"
    if chosen:
        return "--kind" if chosen == "rerank" else None
    classes = config.get("architectures")
    is_classifier = isinstance(classes, list) and any(
        str(each).endswith("ForSequenceClassification") for each in classes
    )
    if is_classifier and saved_as is None and read_pooling(folder).path is None:
        return "config.json (architectures)"
    return None


def own_lines(subject: Subject) -> OwnLines:
    """Say what its classifier reads, and how its scores differ from sentence-transformers'.

    Raises:
        ModelLoadError: it has no classifier that emberd has, or wants a prompt.
        BadOptionError: what the user chose contradicts a file.
    """
    pooling = list(of_classifier(subject.config, subject.chosen.pooling))
    checkpoint = subject.checkpoint(Line("kind", "rerank", ""), *pooling)
    checkpoint.dimensions(subject.hidden_size)  # it has a classifier of ours
    return OwnLines(pooling, [*of_scores(subject.read, subject.config)])


def of_classifier(config: ModelConfig, chosen: Pooling | None) -> Iterator[Finding]:
    """Say what the classifier reads.

    Raises:
        ModelLoadError: it reads what emberd does not have.
        BadOptionError: it contradicts what the user chose.
    """
    read, able = class_of(config).classified(config), POOLINGS
    if read not in able:
        raise ModelLoadError(
            f"{config.path} says classifier_pooling {read!r}, which emberd does not have.",
            hint=f"Choose another model; supported are {', '.join(able)}.",
        )
    if chosen not in (None, read):
        raise BadOptionError(
            f"--pooling {chosen} contradicts {config.path}: the classifier reads {read}.",
            hint="Leave the option out.",
        )
    stated = config.get("classifier_pooling") is not None
    by = "config.json (classifier_pooling)" if stated else "what its classifier reads"
    yield Line("pooling", read, by)


def of_scores(folder: Folder, config: ModelConfig) -> Iterator[Finding]:
    """Note how sentence-transformers' scores differ from emberd's.

    Raises:
        ModelLoadError: it puts a prompt before every query, which emberd does not.
    """
    default = folder.prompts.get(folder.default_prompt or "")
    if default:
        raise ModelLoadError(
            f"{folder.path / DESCRIPTION} makes {format_plain(folder.default_prompt)} the default"
            " prompt, and emberd puts none before a query: its scores would be others.",
            hint="Choose a re-ranker without a prompt.",
        )
    saved = config.get("sentence_transformers")
    stated = (
        read_optional(folder.path / DESCRIPTION).get("activation_fn"),
        saved.get("activation_fn") if isinstance(saved, dict) else None,
        config.get("sbert_ce_default_activation_function"),
    )
    if any(str(each).rpartition(".")[2] == _IDENTITY for each in stated):
        yield (
            "sentence-transformers reports this model's logits as they are. emberd's scores are"
            " their sigmoid, in the same order; `raw_scores` has the logits (docs/http-api.md)."
        )
