"""Which backend would run a model, by the architecture in its config.json; never its own code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emberd.backends import plugins
from emberd.backends.architectures.native import name_of
from emberd.backends.config import ModelConfig
from emberd.errors import BackendBrokenError, ModelLoadError
from emberd.models.modules import read_steps
from emberd.units import format_plain


def find_runner(config: ModelConfig, usual: str) -> str:
    """Return the name of a backend that runs the model here; the `usual` one if it can.

    Raises:
        ModelLoadError: none does; it says which architecture was found, which backends run what,
            and whether the model needs Python code of its own, which emberd never runs.
    """
    architecture = name_of(config)
    runs: dict[str, frozenset[str]] = {}
    broken: list[str] = []
    for name in [usual, *(name for name in plugins.names() if name != usual)]:
        try:
            backend = plugins.load(name)
            runs[name] = plugins.architectures(backend)
            if name == usual and not runs[name] and not config.get("auto_map"):
                return name  # it does not say, so loading will tell
            if architecture in runs[name]:
                if name != usual:
                    plugins.devices(backend)
                return name
        except BackendBrokenError as error:
            if architecture in runs.get(name, ()):
                broken.append(f"Backend {name} runs it, but: {error.message} {error.hint or ''}")
    able = "; ".join(f"{name} runs {', '.join(sorted(runs[name]))}" for name in runs if runs[name])
    hint = " ".join([*broken, f"{able[:1].upper()}{able[1:]}. See docs/writing-a-backend.md."])
    if config.get("auto_map"):
        raise _own_code(config.path, _code_of(config), hint)
    raise ModelLoadError(
        f"{config.path}: no backend here runs the architecture {architecture[:80]!r}.", hint=hint
    )


def refuse_own_steps(folder: Path) -> None:
    """Refuse a model whose modules.json names steps that are Python code of its own.

    Raises:
        ModelLoadError: it does; the message names them.
    """
    own = [
        f"{step.module}.{step.kind}"
        for step in read_steps(folder) or ()
        if step.module.partition(".")[0] != "sentence_transformers"
    ]
    if own:
        raise _own_code(
            folder / "modules.json", ", ".join(own), "Choose a model without steps of its own."
        )


def _code_of(config: ModelConfig) -> str:
    """Return what `auto_map` names, such as `modeling.NewModel`."""
    named: Any = config.get("auto_map")
    found = named.values() if isinstance(named, Mapping) else [named]
    return ", ".join(sorted({str(each) for each in found}))


def _own_code(path: Path, names: str, hint: str) -> ModelLoadError:
    return ModelLoadError(
        f"{path} asks for Python code that comes with the model ({format_plain(names)[:200]}), and"
        " emberd never runs such code: it could do anything on this machine.",
        hint=hint,
    )
