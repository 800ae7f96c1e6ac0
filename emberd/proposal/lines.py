"""The lines of a proposed entry: each key, its value, and the file that says so.

What no file states stays open and is asked for; what files say differently is noted.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from emberd.backends.checkpoint import Checkpoint
from emberd.backends.config import ModelConfig
from emberd.errors import BadOptionError, ModelLoadError
from emberd.folder.differences import PUT_BEFORE_EVERY_TEXT, missing_prompts
from emberd.folder.limits import NO_LIMIT
from emberd.folder.reading import Folder
from emberd.models.json_files import read_optional
from emberd.models.modules import TRANSFORMER_FILES, read_pooling
from emberd.proposal.card import FILE as CARD
from emberd.proposal.card import Card
from emberd.proposal.families import find_family
from emberd.proposal.place import Place
from emberd.registry.spec import POOLINGS, Kind, Pooling, Precision
from emberd.units import format_plain

SIZES = ("hidden_size", "d_model", "dim", "n_embd")
"""What architectures call the size of a token's vector in config.json."""
PROMPTS_FILE = "config_sentence_transformers.json"


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the entry. `origin` is a file, an option, or emberd's own table."""

    key: str
    value: Any
    origin: str


@dataclass(frozen=True, slots=True)
class Open:
    """A key that emberd must know and that no file states; `option` is how to say it."""

    key: str
    why: str
    option: str


Finding = Line | Open | str
"""A line, an open question, or a note in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the user has stated on the command line; None: what the files say."""

    kind: Kind | None = None
    pooling: Pooling | None = None
    max_tokens: int | None = None
    precision: Precision | None = None


def of_source(place: Place) -> Iterator[Finding]:
    """Say where the model comes from; a repository at the commit that was read."""
    if place.source.path:
        yield Line("sources", [{"path": place.source.path}], "the folder that was read")
    else:
        source = {"hf": place.source.hf, "revision": place.source.revision}
        yield Line("sources", [source], "the commit that was read")
    if place.note:
        yield place.note


def of_dimensions(checkpoint: Checkpoint, hidden_size: int) -> Iterator[Finding]:
    """Say how long vectors are: the encoder's, or what the last Dense step makes of them."""
    config, heads = checkpoint.config, checkpoint.heads
    by = next((f"config.json ({key})" for key in SIZES if key in config.values), "config.json")
    if heads:
        step = heads[-1].name.removesuffix(".linear")
        yield Line(
            "dimensions", checkpoint.dimensions(hidden_size), f"{step}/config.json (out_features)"
        )
    else:
        yield Line("dimensions", hidden_size, by)
    file = read_pooling(checkpoint.folder).path
    if file and file.parent == checkpoint.folder:
        return  # modules.json, of a model that has no step for pooling
    for key in ("word_embedding_dimension", "embedding_dimension"):
        stated = read_optional(file).get(key) if file else None
        if stated not in (None, hidden_size):
            where = _named(file, checkpoint.folder) if file else ""
            yield (
                f"{where} ({key}) says {format_plain(stated)}, and {by} {hidden_size}. The weights"
                " have to fit config.json, which loading checks."
            )


def of_pooling(folder: Folder, chosen: Pooling | None) -> Iterator[Finding]:
    """Say how tokens become one vector, as the Pooling step's file states.

    Raises:
        ModelLoadError: the file asks for a pooling that emberd does not have.
        BadOptionError: it contradicts what the user chose.
    """
    file, able = read_pooling(folder.path), POOLINGS
    if not file.path or not file.modes:
        if chosen:
            yield Line("pooling", chosen, "--pooling")
        else:
            where = _named(file.path, folder.path) if file.path else "any file"
            yield Open("pooling", f"not stated by {where}", f"--pooling {'|'.join(able)}")
        return
    where, (first, *more) = _named(file.path, folder.path), sorted(file.modes)
    if more or first not in able:
        raise ModelLoadError(
            f"{file.path} says pooling {' + '.join([first, *more])}, which emberd does not have.",
            hint=f"Choose another model; supported are {', '.join(able)}, one at a time.",
        )
    if chosen not in (None, first):
        raise BadOptionError(
            f"--pooling {chosen} contradicts {file.path}, which says {first}.",
            hint="Leave the option out; the file's word is what the model was trained with.",
        )
    yield Line("pooling", first, where)


def of_length(folder: Folder) -> Iterator[Finding]:
    """Say whether vectors are scaled to length 1, if there are steps that tell."""
    if folder.normalizes is None:
        return
    lists = "lists Normalize" if folder.normalizes else "does not list Normalize"
    yield Line("normalize", folder.normalizes, f"modules.json ({lists})")
    if not folder.normalizes:
        yield (
            "Vectors keep the length that the model gives them, as in sentence-transformers. With"
            " `normalize: true` they have length 1, and the same cosines."
        )


def of_limit(folder: Folder, chosen: int | None) -> Iterator[Finding]:
    """Say where texts are cut, and which files would cut them elsewhere.

    Raises:
        BadOptionError: what the user chose is more than the weights allow.
    """
    if chosen and folder.positions and chosen > folder.positions:
        raise BadOptionError(
            f"--max-tokens {chosen} is more than the {folder.positions} positions of config.json.",
            hint=f"Say {folder.positions} or less, or leave the option out.",
        )
    if chosen:
        yield Line("max_tokens", chosen, "--max-tokens")
        return
    if folder.limit is None:
        yield Open("max_tokens", "where texts are cut is not stated by any file", "--max-tokens N")
        return
    yield Line("max_tokens", folder.limit, folder.limit_by)
    for name in ("tokenizer_config.json", *TRANSFORMER_FILES):
        values = read_optional(folder.path / name)
        for key in ("max_seq_length", "model_max_length"):
            said = values.get(key)
            if isinstance(said, int) and folder.limit != said <= NO_LIMIT:
                yield (
                    f"{name} ({key}) says {said} tokens; sentence-transformers cuts texts at"
                    f" {folder.limit}, as {folder.limit_by} says."
                )


def of_precision(config: ModelConfig, chosen: Precision | None) -> Iterator[Finding]:
    """Say the precision of the weights: as they were published, if config.json tells.

    Raises:
        ModelLoadError: they are quantized to a number of bits that emberd does not have.
    """
    stored = config.get("dtype", config.get("torch_dtype"))
    quantized = config.get("quantization")
    if chosen:
        yield Line("precision", chosen, "--precision")
    elif isinstance(quantized, Mapping):
        stated = f"{quantized.get('bits')}bit"
        if stated not in get_args(Precision):
            raise ModelLoadError(
                f"{config.path} says {quantized.get('bits')!r}-bit weights, which emberd does not"
                " have.",
                hint="Choose a conversion with 4 or 8 bits, or the weights in full precision.",
            )
        yield Line("precision", stated, "config.json (quantization)")
    elif stored == "bfloat16":
        yield Line("precision", "bf16", "config.json (dtype)")
    else:
        yield Line("precision", "f32", "emberd's default: as exact as the file")


def of_precision_as_is(file: str, chosen: Precision | None) -> Iterator[Finding]:
    """Say the precision of weights that no backend rounds. Raises BadOptionError for another."""
    if chosen not in (None, "f32"):
        raise BadOptionError(
            f"--precision {chosen}: the weights in {file} are taken as they are.",
            hint="Leave the option out.",
        )
    yield Line("precision", "f32", f"the weights in {file} are taken as they are")


def of_prompts(folder: Folder, label: str) -> Iterator[Finding]:
    """Say what goes before queries and documents: by the files, else by the table of families.

    Without a label, by the files alone.
    """
    family = find_family(label) if label else None
    stated = missing_prompts(folder, {})
    if stated:
        yield Line("prompts", stated, f"{PROMPTS_FILE} (prompts)")
        if family and family.prompts != stated:
            yield f"emberd's table of families ({family.name}) has other prompts; the file counts."
    elif family:
        by = f"from emberd's table of families ({family.name}); no file states any"
        yield Line("prompts", dict(family.prompts), by)
    elif label:
        yield (
            "No file states prompts, and emberd's table of families does not know this model. If"
            " its card asks for some, add `prompts: {query: ..., document: ...}`."
        )
    default = folder.prompts.get(folder.default_prompt or "")
    if default:
        yield f"{PROMPTS_FILE} makes {format_plain(folder.default_prompt)} the default, " + (
            PUT_BEFORE_EVERY_TEXT
        )
    unused = [
        format_plain(name) for name, text in folder.prompts.items() if text not in stated.values()
    ]
    if unused:
        yield f"{PROMPTS_FILE} has prompts that emberd does not use: {', '.join(unused)}."


def of_card(card: Card) -> Iterator[Finding]:
    """Say the licence."""
    if card.licence:
        yield Line("licence", card.licence, f"{CARD} (license)")
    else:
        yield f"No licence is stated: {card.problem or f'{CARD} has no `license`'}."


def _named(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder))
