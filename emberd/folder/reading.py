"""What a model's files say besides the weights, read as sentence-transformers reads them.

This is the one reader for the worker that loads a model, `config check` and `verify`. It never
guesses what no file says. Which file counts is as in sentence-transformers 6.2,
`base/modules/transformer.py`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberd.backends.architectures.native import STATIC_EMBEDDING, class_of
from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError
from emberd.folder.limits import read_limit
from emberd.folder.normalizer import replacing_normalizer
from emberd.models.json_files import MEND, read_optional
from emberd.models.modules import TRANSFORMER_FILES, Step, old_layout, read_pooling, read_steps
from emberd.registry.spec import ModelSpec
from emberd.spaces.options import SpaceOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What the files of a model's folder say.

    Attributes:
        path: the folder.
        vocab_size: the number of tokens that the weights have vectors for; None if config.json
            does not say.
        positions: the most tokens that the weights have positions for, or None.
        limit: where sentence-transformers cuts texts, in tokens, but never beyond `positions`.
        limit_by: the file that says so.
        normalizer: what sentence-transformers uses in place of tokenizer.json's `normalizer`, in
            its format; None if it uses that one.
        lower_case: whether this lower-cases texts and tokenizer.json's own normalizer does not.
        prompts: the prompts that are not empty, by the names that the folder gives them.
        default_prompt: the name of the prompt for texts that ask for none.
        include_prompt: False if a prompt's tokens are read but not pooled.
        only_known: whether a text's tokens are only those that its tokenizer knows, without special
            ones; see `Architecture`.
        normalizes: whether vectors are scaled to length 1; None if there is no modules.json.
    """

    path: Path
    vocab_size: int | None
    positions: int | None
    limit: int | None
    limit_by: str
    normalizer: Mapping[str, Any] | None
    lower_case: bool
    prompts: Mapping[str, str]
    default_prompt: str | None
    include_prompt: bool
    only_known: bool
    normalizes: bool | None

    def max_tokens(self, spec: ModelSpec) -> int:
        """Return where texts are cut, in tokens: what the entry says, else what the folder says.

        Raises:
            ModelLoadError: neither says so, or the weights have fewer positions.
        """
        tokens = spec.max_tokens or self.limit
        if tokens is None:
            raise ModelLoadError(
                f"Neither the registry nor the checkpoint says how many tokens {spec.name} takes.",
                hint=f"Add models.{spec.name}.max_tokens to the config file.",
            )
        if self.positions is not None and tokens > self.positions:
            raise ModelLoadError(
                f"The registry says {tokens} tokens for {spec.name}, but the checkpoint has"
                f" positions for only {self.positions}.",
                hint=f"Lower models.{spec.name}.max_tokens.",
            )
        return tokens

    def options(self, spec: ModelSpec) -> SpaceOptions:
        """Return the limits and options of the entry's space with this folder.

        Raises:
            ModelLoadError: as `max_tokens`.
        """
        return SpaceOptions.of(
            spec,
            max_tokens=self.max_tokens(spec),
            include_prompt=self.include_prompt or spec.pooling == "last",  # never a prompt's
            lower_case=self.lower_case,
            normalizer=json.dumps(self.normalizer, sort_keys=True) if self.normalizer else "",
        )


def read_folder(folder: Path) -> Folder:
    """Read what a folder in the layout of a Hub repository says.

    Raises:
        ModelLoadError: a file is damaged or asks for something unsupported; the message names it.
    """
    config = read_optional(folder / "config.json")
    tokenizer = read_optional(folder / "tokenizer_config.json")
    transformer, named = _transformer(folder)
    described = read_optional(folder / "config_sentence_transformers.json")
    steps = read_steps(folder)
    _check_layout(folder, steps or ())
    if tokenizer.get("truncation_side", "right") != "right":
        raise ModelLoadError(
            f"{folder / 'tokenizer_config.json'} cuts off the beginning of long texts"
            f" (truncation_side {tokenizer['truncation_side']!r}); emberd cuts off their end.",
            hint='If that is fine for your texts, write `"truncation_side": "right"` there.',
        )
    sizes = ModelConfig(folder / "config.json", config)
    architecture = class_of(sizes)
    positions = architecture.positions(sizes)
    limit, limit_by = read_limit(folder, tokenizer, transformer, named)
    if positions is not None and (limit is None or limit > positions):
        limit, limit_by = positions, "config.json (max_position_embeddings)"
    prompts = described.get("prompts") or {}
    if not (isinstance(prompts, dict) and all(isinstance(p, str | None) for p in prompts.values())):
        where = folder / "config_sentence_transformers.json"
        raise ModelLoadError(f"{where}: `prompts` is not a mapping of names to texts.", hint=MEND)
    default = described.get("default_prompt_name")
    normalizer, lowers = replacing_normalizer(
        folder / "tokenizer.json",
        tokenizer,
        usual_class=architecture.tokenizer_class,
        lower_case=transformer.get("do_lower_case") is True,
    )
    vocab_size = config.get("vocab_size")
    return Folder(
        path=folder,
        vocab_size=vocab_size if isinstance(vocab_size, int) else None,
        positions=positions,
        limit=limit,
        limit_by=limit_by,
        normalizer=normalizer,
        lower_case=lowers,
        prompts={str(name): text for name, text in prompts.items() if text},
        default_prompt=default if isinstance(default, str) else None,
        include_prompt=read_pooling(folder).include_prompt,
        only_known=architecture.only_known,
        normalizes=None if steps is None else any(step.kind == "Normalize" for step in steps),
    )


def _transformer(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the options of the Transformer step, and the name of the file that has them."""
    for name in TRANSFORMER_FILES:
        if values := read_optional(folder / name):
            return values, name
    return {}, ""


def _check_layout(folder: Path, steps: tuple[Step, ...]) -> None:
    """Refuse an encoder in a subfolder, where old versions of sentence-transformers kept it."""
    for step in steps:
        if step.path in ("", "."):
            continue
        if step.kind == "Transformer":
            raise old_layout(folder, step.path)
        if step.kind == "StaticEmbedding":
            raise ModelLoadError(
                f"{folder} has its token vectors in {step.path}; emberd looks for them next to"
                " modules.json.",
                hint=f"Move the files in {folder / step.path} to {folder}, write"
                ' `"path": ""` for StaticEmbedding in modules.json, and a config.json with'
                f' `{{"model_type": "{STATIC_EMBEDDING}"}}`.',
            )
