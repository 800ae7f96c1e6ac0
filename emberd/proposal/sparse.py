"""Sparse models among those that somebody adds: what says that it is one, and its own lines."""

from collections.abc import Iterator
from pathlib import Path

from emberd.backends.config import ModelConfig
from emberd.errors import BadOptionError
from emberd.files import is_file
from emberd.models.modules import read_steps
from emberd.models.splade import TOKEN_WEIGHTS, lists_splade
from emberd.proposal import lines
from emberd.proposal.lines import Finding, Line
from emberd.proposal.subject import OwnLines, Subject
from emberd.registry.spec import Kind


def said_by(folder: Path, chosen: Kind | None) -> str | None:
    """Return what says that the model is a sparse one; None if nothing does.

    Raises:
        BadOptionError: what the user chose contradicts a file.
    """
    listed = lists_splade(folder)
    if listed and chosen not in (None, "sparse"):
        raise BadOptionError(
            f"--kind {chosen} contradicts {folder / 'modules.json'}, which lists SpladePooling.",
            hint="Leave the option out.",
        )
    if listed:
        return "modules.json (SpladePooling)"
    return "--kind" if chosen == "sparse" else None


def own_lines(subject: Subject) -> OwnLines:
    """Say how long its vectors are, and what goes before texts.

    Raises:
        ModelLoadError: it has no head that emberd has.
    """
    size = subject.config.size("vocab_size")
    subject.checkpoint(Line("kind", "sparse", ""), Line("pooling", "max", ""))
    dimensions = Line("dimensions", size, "config.json (vocab_size)")
    return OwnLines([dimensions], [*lines.of_prompts(subject.read, "")])


def notes(folder: Path, config: ModelConfig) -> Iterator[Finding]:
    """Note that a model that embeds could be a sparse one, too."""
    if is_file(folder / TOKEN_WEIGHTS):
        yield (
            f"{TOKEN_WEIGHTS} makes sparse vectors, too: `--kind sparse` proposes a second entry,"
            " which needs a --name of its own."
        )
    elif read_steps(folder) is None and "ForMaskedLM" in str(config.get("architectures")):
        yield (
            "config.json says that the model has a masked language model's head. If its card says"
            " SPLADE, or sparse: `--kind sparse`."
        )
