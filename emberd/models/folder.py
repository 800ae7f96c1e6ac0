"""What a model's folder says of itself beside its weights, as sentence-transformers takes it.

Read here once for all: the worker that loads it, `config check` and `verify`. Plain JSON; what no
file says is not guessed. Sources of what counts, and which file wins: sentence-transformers 6.2,
`base/modules/transformer.py` and `sentence_transformer/modules/pooling.py`; transformers 5.23,
`tokenization_utils_base.py` and `models/bert/tokenization_bert.py`.
"""

import glob
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError
from emberd.files import is_file, read
from emberd.registry.spec import ModelSpec, is_below
from emberd.spaces.options import SpaceOptions

LEAST_TOKENS = 3  # of a text: what begins it, what ends it, and one of its own
MEND = "Mend that file or its permissions, or get it again from where the model came from."

TRANSFORMER_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Where the Transformer step keeps its options: the first of these that holds something."""

_POOLINGS = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "lasttoken": "last",
}
"""What the files of the Pooling step call the poolings, by our names; others go by their own."""

_DOCUMENT = ("document", "passage", "corpus")
"""By which names sentence-transformers looks for the prompt of documents, in its order."""

_NORMALIZED_BY_CLASS = {"BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer"}
"""Tokenizers of transformers that set up a BertNormalizer by tokenizer_config.json."""

_BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""What tokenizer_config.json may say of it, by the names in tokenizer.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that the folder says and the entry does not.

    `key` is the entry's key, `line` what to write there to have it as the folder says.
    """

    key: str
    message: str
    line: str

    def told(self, name: str) -> str:
        """Say it of the entry `name`, with what to do, in one line."""
        return f"{self.message} To have it so, write below models.{name}: {self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One entry of modules.json: its kind, such as `Pooling`, and its folder below the model's."""

    kind: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What the files say.

    Attributes:
        path: the folder.
        vocab_size: how many tokens the weights have vectors for; None: config.json does not say.
        positions: the most tokens that the weights have positions for, or None.
        limit: where sentence-transformers cuts texts, in tokens, but never beyond `positions`.
        limit_by: which file says so.
        normalizer: what sentence-transformers puts in the place of tokenizer.json's `normalizer`,
            in its format; None: that one is used.
        lower_case: whether that makes texts lower-case, which tokenizer.json's own does not.
        prompts: texts by their names there; no empty ones.
        default_prompt: the name of the one that every text gets for which none is asked.
        include_prompt: False: a prompt's tokens are read, but not pooled.
        normalizes: whether vectors get length 1; None: there is no modules.json.
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
    normalizes: bool | None

    def max_tokens(self, spec: ModelSpec) -> int:
        """Return where texts are cut: what the entry states, else what the folder says.

        Raises:
            ModelLoadError: neither says it, or the weights have fewer positions.
        """
        tokens = spec.max_tokens or self.limit
        if tokens is None:
            raise ModelLoadError(
                f"Neither the registry nor the checkpoint says how many tokens {spec.name} takes.",
                hint=f"Add models.{spec.name}.max_tokens to the config file.",
            )
        if self.positions is not None and tokens > self.positions:
            raise ModelLoadError(
                f"The registry says {tokens} tokens for {spec.name} and the checkpoint has"
                f" positions for {self.positions}.",
                hint=f"Lower models.{spec.name}.max_tokens.",
            )
        return tokens

    def options(self, spec: ModelSpec) -> SpaceOptions:
        """Return the limits and options of the space that the entry has with this folder.

        Raises:
            ModelLoadError: as `max_tokens`.
        """
        return SpaceOptions.of(
            spec,
            max_tokens=self.max_tokens(spec),
            include_prompt=self.include_prompt or spec.pooling == "last",  # its end is no prompt's
            lower_case=self.lower_case,
            normalizer=json.dumps(self.normalizer, sort_keys=True) if self.normalizer else "",
        )

    def differences(self, spec: ModelSpec) -> list[Difference]:
        """Return what the entry has otherwise than the folder says."""
        return [*self._other_limit(spec), *self._other_prompts(spec), *self._other_length(spec)]

    def _other_limit(self, spec: ModelSpec) -> Iterator[Difference]:
        if spec.max_tokens is not None and self.limit not in (None, spec.max_tokens):
            yield Difference(
                key="max_tokens",
                message=f"{spec.name} cuts texts at {spec.max_tokens} tokens, as its entry states;"
                f" sentence-transformers cuts them at {self.limit}, as {self.limit_by} says.",
                line=f"max_tokens: {self.limit}",
            )

    def _other_prompts(self, spec: ModelSpec) -> Iterator[Difference]:
        said: dict[str, str | None] = {"query": self.prompts.get("query")}
        said["document"] = next(filter(None, map(self.prompts.get, _DOCUMENT)), None)
        ours: dict[str, str] = {kind: text for kind, text in spec.prompts.items() if text}
        missing = {kind: text for kind, text in said.items() if text and text != ours.get(kind)}
        default = self.prompts.get(self.default_prompt or "")
        has_default = default and default not in (*ours.values(), *missing.values())
        if has_default:
            missing["document"] = default or ""
        if not missing:
            return
        where = "config_sentence_transformers.json"
        message = f"{where} says prompts that the entry of {spec.name} does not have."
        if default and default in missing.values():
            message += (
                f" It makes {self.default_prompt} the default, which sentence-transformers puts"
                " before every text; emberd puts a prompt only where `input_type` asks for it."
            )
        quoted = ", ".join(f"{kind}: {_quoted(text)}" for kind, text in (ours | missing).items())
        yield Difference(key="prompts", message=message, line=f"prompts: {{{quoted}}}")

    def _other_length(self, spec: ModelSpec) -> Iterator[Difference]:
        if self.normalizes in (None, spec.normalize):
            return
        lists = "lists" if self.normalizes else "does not list"
        lengths = "of length 1" if spec.normalize else "of any length"
        yield Difference(
            key="normalize",
            message=f"modules.json {lists} Normalize, and {spec.name} gives vectors {lengths}, as"
            " its entry states. Their cosines are the same.",
            line=f"normalize: {str(self.normalizes).lower()}",
        )


def read_folder(folder: Path) -> Folder:
    """Read what a folder in the layout of a Hub repository says of itself.

    Raises:
        ModelLoadError: one of the files is damaged or says what cannot be done; names it.
    """
    config = _values(folder / "config.json")
    tokenizer = _values(folder / "tokenizer_config.json")
    transformer, named = _transformer(folder)
    described = _values(folder / "config_sentence_transformers.json")
    steps = read_steps(folder)
    _check_layout(folder, steps or ())
    if tokenizer.get("truncation_side", "right") != "right":
        raise ModelLoadError(
            f"{folder / 'tokenizer_config.json'} has long texts lose their beginning"
            f" (truncation_side {tokenizer['truncation_side']!r}); emberd cuts off their end.",
            hint='Write `"truncation_side": "right"` there if that is as good for your texts.',
        )
    positions = _positions(config)
    limit, limit_by = _limit(folder, tokenizer, transformer, named)
    if positions is not None and (limit is None or limit > positions):
        limit, limit_by = positions, "config.json (max_position_embeddings)"
    prompts = described.get("prompts") or {}
    if not (isinstance(prompts, dict) and all(isinstance(p, str | None) for p in prompts.values())):
        where = folder / "config_sentence_transformers.json"
        raise ModelLoadError(f"{where}: `prompts` is no list of texts by name.", hint=MEND)
    default = described.get("default_prompt_name")
    normalizer, lowers = _normalizer(
        folder, config, tokenizer, lower_case=transformer.get("do_lower_case") is True
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
        normalizes=None if steps is None else any(step.kind == "Normalize" for step in steps),
    )


def read_steps(folder: Path) -> tuple[Step, ...] | None:
    """Return what modules.json lists, in its order; None: there is no such file.

    Format: https://sbert.net/docs/package_reference/sentence_transformer/modules.html
    """
    path = folder / "modules.json"
    if not _is_there(path):
        return None
    modules = read_json(path)
    try:
        return tuple(
            Step(kind=str(step["type"]).rpartition(".")[2], path=str(step.get("path", "")))
            for step in modules
        )
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(
            f"{path} is damaged: not a list of modules with types.", hint=MEND
        ) from None


def listed_weights(folder: Path) -> list[str]:
    """Return glob patterns of the weights that a folder's own lists name, however they are called.

    Those are the shards in an index and the folders of Dense steps: whatever is computed with is
    part of the model, also where its name is not the usual one. A damaged list names nothing:
    loading says what is wrong with it.
    """
    patterns: set[str] = set()
    index = folder / "model.safetensors.index.json"
    with suppress(ModelLoadError):
        heads = (step.path for step in read_steps(folder) or () if step.kind == "Dense")
        patterns |= {f"{glob.escape(path)}/*" for path in heads}
    with suppress(ModelLoadError, LookupError, AttributeError):
        if is_file(index) and not is_file(folder / "model.safetensors"):
            patterns |= {
                glob.escape(str(name)) for name in read_object(index)["weight_map"].values()
            }
    return sorted(patterns)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingFile:
    """The options of the Pooling step. No `modes`: it does not say; several are joined together."""

    path: Path | None = None
    modes: frozenset[str] = frozenset()
    include_prompt: bool = True


def read_pooling(folder: Path) -> PoolingFile:
    """Return what the Pooling step's own file says, by the names of the registry."""
    listed = [step.path for step in read_steps(folder) or () if step.kind == "Pooling"]
    named = [folder / path / "config.json" for path in listed if path and is_below(path)]
    files = [path for path in named if _is_there(path)]
    path = next(iter(files or sorted(folder.glob("*_Pooling/config.json"))), None)
    if path is None:
        return PoolingFile()
    values = read_object(path)
    stated = values.get("pooling_mode")  # newer files; older ones have a flag for each
    flags = {key: value for key, value in values.items() if key.startswith("pooling_mode_")}
    if isinstance(stated, str):
        modes = {stated}
    elif isinstance(stated, list):
        modes = set(map(str, stated))
    else:
        modes = {key.removeprefix("pooling_mode_") for key, value in flags.items() if value is True}
        modes = modes or {"mean" for _ in flags}
    return PoolingFile(
        path=path,
        modes=frozenset(_POOLINGS.get(mode, mode) for mode in modes),
        include_prompt=values.get("include_prompt") is not False,
    )


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or raise `ModelLoadError`."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} is damaged: not a JSON object.", hint=MEND)
    return values


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what a file holds, or raise `ModelLoadError`."""
    try:
        return json.loads(read(path))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing.", hint=MEND) from None
    except RecursionError:
        raise ModelLoadError(f"{path} is damaged: nested too deep.", hint=MEND) from None
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise ModelLoadError(f"{path} cannot be read: {error}.", hint=MEND) from error


def _values(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file that need not be there."""
    return read_object(path) if _is_there(path) else {}


def _is_there(path: Path) -> bool:
    """Say whether there is such a file; one that may not be looked at is read, which says so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True


def _transformer(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the options of the Transformer step, and the name of the file that has them."""
    for name in TRANSFORMER_FILES:
        if values := _values(folder / name):
            return values, name
    return {}, ""


def _limit(
    folder: Path, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any], named: str
) -> tuple[int | None, str]:
    """Return where texts are cut by these files, in tokens, and which of them says so."""
    arguments = transformer.get("processor_kwargs", transformer.get("tokenizer_args"))
    if isinstance(arguments, dict):
        found = _tokens(folder / named, "model_max_length", arguments.get("model_max_length"))
        if found:
            return found, f"{named} (model_max_length)"
    found = _tokens(folder / named, "max_seq_length", transformer.get("max_seq_length"))
    if found:
        return found, f"{named} (max_seq_length)"
    key = "model_max_length" if tokenizer.get("model_max_length") is not None else "max_len"
    return (
        _tokens(folder / "tokenizer_config.json", key, tokenizer.get(key)),
        f"tokenizer_config.json ({key})",
    )


def _tokens(path: Path, key: str, value: object) -> int | None:
    """Return a number of tokens; None for none, and for a number so large that it means none."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= LEAST_TOKENS:
        return None if math.isinf(value) or value > 2**31 else int(value)
    raise ModelLoadError(
        f"{path}: {key} is {str(value)[:40]!r}, which is no length of a text in tokens.",
        hint=f"Correct it, or remove the key: it is where texts are cut, {LEAST_TOKENS} at least.",
    )


def _positions(config: Mapping[str, Any]) -> int | None:
    """Return the most tokens that the checkpoint's positions allow, or None when it does not say.

    Positions of the RoBERTa family start after the padding index, so the ones up to it are never
    used (fairseq's convention, kept by Hugging Face's `create_position_ids_from_input_ids`). The
    index is 1 unless a RoBERTa config says otherwise; MPNet's code has it fixed. XLNet says -1.
    """
    try:
        positions = int(config["max_position_embeddings"])
        kind = str(config.get("model_type", ""))
        stated = config.get("pad_token_id")
        padding = 1 if stated is None or kind == "mpnet" else int(stated)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    unused = padding + 1 if kind in ("roberta", "xlm-roberta", "mpnet") else 0
    return positions - unused if positions > unused else None


def _normalizer(
    folder: Path, config: Mapping[str, Any], tokenizer: Mapping[str, Any], *, lower_case: bool
) -> tuple[Mapping[str, Any] | None, bool]:
    """Return what takes the place of tokenizer.json's normalizer, and whether that alone lowers.

    transformers' BERT tokenizers go by tokenizer_config.json. `lower_case` is
    sentence-transformers' own option: it lowers texts before all else.
    """
    kind = tokenizer.get("tokenizer_class") or {
        "bert": "BertTokenizer", "mpnet": "MPNetTokenizer"
    }.get(str(config.get("model_type")))  # fmt: skip
    known = _BERT_NORMALIZER if str(kind).removesuffix("Fast") in _NORMALIZED_BY_CLASS else {}
    stated = {ours: tokenizer[key] for key, ours in known.items() if key in tokenizer}
    if not (stated or lower_case):
        return None, False
    own = used = read_normalizer(folder / "tokenizer.json")
    if own and own.get("type") == "BertNormalizer":
        used = own | stated
    if lower_case and not _lowers(used):
        inner = used.get("normalizers", [used]) if used else []
        used = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *inner]}
    return (None, False) if used == own else (used, _lowers(used) and not _lowers(own))


def _lowers(normalizer: Mapping[str, Any] | None) -> bool:
    """Say whether it makes texts lower-case before anything that asks for their case."""
    if not normalizer:
        return False
    steps = normalizer.get("normalizers")
    if isinstance(steps, list):
        return any(isinstance(step, dict) and step.get("type") == "Lowercase" for step in steps)
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True


def read_normalizer(path: Path) -> dict[str, Any] | None:
    """Return the `normalizer` of a tokenizer.json, None if it has none.

    Key by key, up to this one: the vocabulary, which is nearly all of the file, comes after it.

    Raises:
        ModelLoadError: the file is missing or damaged before that place.
    """
    decoder, space = json.JSONDecoder(), " \t\n\r"
    try:
        text = read(path).decode()
        place = text.index("{") + 1
        while True:
            place = text.index('"', place)
            key, place = decoder.raw_decode(text, place)
            place = text.index(":", place) + 1
            place += len(text[place : place + 80]) - len(text[place : place + 80].lstrip(space))
            value, place = decoder.raw_decode(text, place)
            if key == "normalizer":
                return value if isinstance(value, dict) else None
            if text[place:].lstrip(space)[:1] != ",":
                return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {str(error)[:200]}.", hint=MEND) from None


def _check_layout(folder: Path, steps: tuple[Step, ...]) -> None:
    """Refuse an encoder that lies in a folder of its own, as old sentence-transformers kept it."""
    elsewhere = next((s.path for s in steps if s.kind == "Transformer" and s.path), None)
    if elsewhere:
        raise old_layout(folder, elsewhere)


def old_layout(folder: Path, elsewhere: str) -> ModelLoadError:
    """Return the error for an encoder that lies in a folder of its own, `elsewhere`."""
    return ModelLoadError(
        f"{folder} has its encoder in {elsewhere}, where old versions of sentence-transformers put"
        " it; emberd reads it beside modules.json.",
        hint=f'Move the files in {folder / elsewhere} to {folder} and write `"path": ""` for the'
        " Transformer in modules.json; sentence-transformers takes that, too.",
    )


def _quoted(text: str) -> str:
    """Return a text as YAML (and JSON) quotes it, on one line."""
    return json.dumps(text, ensure_ascii=False)
