"""Where a registry entry and its model's folder disagree. The entry counts; people should know."""

import json
from collections.abc import Iterator, Mapping

from emberd.folder.reading import Folder
from emberd.registry.difference import Difference
from emberd.registry.spec import ModelSpec

_DOCUMENT = ("document", "passage", "corpus")
"""The names under which sentence-transformers looks for the document prompt, in its order."""


PUT_BEFORE_EVERY_TEXT = (
    "which sentence-transformers puts before every text; emberd puts a prompt only where"
    " `input_type` asks for it."
)


def differences(folder: Folder, spec: ModelSpec) -> list[Difference]:
    """Return where the entry disagrees with the folder."""
    return [
        *_other_limit(folder, spec),
        *_other_prompts(folder, spec),
        *_other_length(folder, spec),
    ]


def missing_prompts(folder: Folder, ours: Mapping[str, str]) -> dict[str, str]:
    """Return the prompts by input type that the folder has and an entry with `ours` lacks."""
    said: dict[str, str | None] = {"query": folder.prompts.get("query")}
    said["document"] = next(filter(None, map(folder.prompts.get, _DOCUMENT)), None)
    missing = {kind: text for kind, text in said.items() if text and text != ours.get(kind)}
    default = folder.prompts.get(folder.default_prompt or "")
    if default and default not in (*ours.values(), *missing.values()):
        missing["document"] = default
    return missing


def _other_limit(folder: Folder, spec: ModelSpec) -> Iterator[Difference]:
    if spec.max_tokens is not None and folder.limit not in (None, spec.max_tokens):
        yield Difference(
            key="max_tokens",
            message=f"{spec.name} cuts texts at {spec.max_tokens} tokens, as its entry states;"
            f" sentence-transformers cuts them at {folder.limit}, as {folder.limit_by} says.",
            line=f"max_tokens: {folder.limit}",
        )


def _other_prompts(folder: Folder, spec: ModelSpec) -> Iterator[Difference]:
    ours: dict[str, str] = {kind: text for kind, text in spec.prompts.items() if text}
    missing = missing_prompts(folder, ours)
    if not missing:
        return
    where = "config_sentence_transformers.json"
    message = f"{where} lists prompts that the entry of {spec.name} does not have."
    default = folder.prompts.get(folder.default_prompt or "")
    if default and default in missing.values():
        message += f" It makes {folder.default_prompt} the default, {PUT_BEFORE_EVERY_TEXT}"
    quoted = ", ".join(f"{kind}: {_quoted(text)}" for kind, text in (ours | missing).items())
    yield Difference(key="prompts", message=message, line=f"prompts: {{{quoted}}}")


def _other_length(folder: Folder, spec: ModelSpec) -> Iterator[Difference]:
    if folder.normalizes in (None, spec.normalize) or spec.kind == "sparse":
        return
    lists = "lists" if folder.normalizes else "does not list"
    lengths = "of length 1" if spec.normalize else "of any length"
    yield Difference(
        key="normalize",
        message=f"modules.json {lists} Normalize, and {spec.name} gives vectors {lengths}, as"
        " its entry states. Their cosines are the same.",
        line=f"normalize: {str(folder.normalizes).lower()}",
    )


def _quoted(text: str) -> str:
    """Return a text as YAML (and JSON) quotes it, on one line."""
    return json.dumps(text, ensure_ascii=False)
