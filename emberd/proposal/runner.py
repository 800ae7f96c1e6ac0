"""Which backend would run a model, by the architecture in its config.json and by its weights.

The usual one if it can, else one that runs the architecture, else one that runs any, such as
`onnx`. Never the model's own code.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emberd.backends import plugins
from emberd.backends.architectures.native import name_of, onnx_hint, read_architecture
from emberd.backends.base import Backend, Kind
from emberd.backends.config import ModelConfig
from emberd.errors import BackendBrokenError, ModelLoadError
from emberd.models.modules import read_steps
from emberd.proposal.lines import SIZES
from emberd.proposal.place import Place
from emberd.units import format_plain


@dataclass(frozen=True, slots=True)
class Runner:
    """A backend by its name; `why` an entry must name it, or None if it need not."""

    name: str
    backend: Backend
    why: str | None

    def hidden_size(self, config: ModelConfig) -> int:
        """Return the size of a token's vector. Raises ModelLoadError if the backend refuses it."""
        runs = plugins.architectures(self.backend)
        if runs:
            return read_architecture(config, backend=self.name, runs=runs).hidden_size
        return config.size(next((key for key in SIZES if key in config.values), SIZES[0]))


def find_runner(place: Place, config: ModelConfig, usual: str, kind: Kind) -> Runner:
    """Return a backend that runs the model here; the `usual` one if it can.

    If weights are missing for all that could, it is the first of them, which then says so.

    Raises:
        ModelLoadError: none could; it says which architecture was found, which backends run what,
            and whether the model needs Python code of its own, which emberd never runs.
    """
    backends = _backends(usual, kind)
    able, broken = _able(backends, config, usual)
    refuses = bool(able) and not _accepts(able[0], backends[able[0]], config)
    anything = [name for name in backends if plugins.any_architecture(backends[name])]
    order = [*anything, *able] if refuses else [*able, *anything]
    name = next((each for each in order if place.weights(each)), able[0] if able else None)
    if name is None:
        raise _nobody(backends, broken, config, kind)
    if name == usual:
        return Runner(name, backends[name], None)
    architecture = format_plain(name_of(config))
    if refuses or usual not in able:
        why = f"{usual} does not run {'this ' if refuses else ''}{architecture}"
    else:
        why = f"no weights for {usual} are there"
    file = f"{place.weights(name)[0]}; " if name in anything else ""
    return Runner(name, backends[name], f"{file}{why}")


def _backends(usual: str, kind: Kind) -> dict[str, Backend]:
    """Return all backends that can be used for a kind of model, the usual one first."""
    backends: dict[str, Backend] = {}
    for name in sorted(plugins.names(), key=lambda name: (name != usual, name)):
        with suppress(BackendBrokenError):
            backend = plugins.load(name)
            if kind in plugins.kinds(backend):
                backends[name] = backend
    return backends


def _able(
    backends: Mapping[str, Backend], config: ModelConfig, usual: str
) -> tuple[list[str], list[str]]:
    """Return which backends run the architecture here, and in words which would but cannot."""
    able: list[str] = []
    broken: list[str] = []
    for name, backend in backends.items():
        runs = plugins.architectures(backend)
        if name == usual and not (runs or plugins.any_architecture(backend)):
            if not config.get("auto_map"):
                able.append(name)  # it does not say, so loading will tell
        elif name_of(config) in runs:
            try:
                if not able and name != usual:
                    plugins.devices(backend)
                able.append(name)
            except BackendBrokenError as error:
                broken.append(f"Backend {name} runs it, but: {error.message} {error.hint or ''}")
    return able, broken


def _accepts(name: str, backend: Backend, config: ModelConfig) -> bool:
    """Say whether a backend that runs the architecture also runs what config.json says of it."""
    try:
        Runner(name, backend, None).hidden_size(config)
    except ModelLoadError:
        return False
    return True


def _nobody(
    backends: Mapping[str, Backend], broken: list[str], config: ModelConfig, kind: Kind
) -> ModelLoadError:
    runs = {name: ", ".join(sorted(plugins.architectures(backends[name]))) for name in backends}
    able = "; ".join(f"{name} runs {runs[name]}" for name in runs if runs[name])
    onnx = f"{onnx_hint(config.path.parent)} " if kind == "embed" else ""  # which only embeds
    otherwise = f"{onnx}See docs/writing-a-backend.md."
    hint = " ".join([*broken, f"{able[:1].upper()}{able[1:]}.", otherwise])
    if config.get("auto_map"):
        return _own_code(config.path, _code_of(config), hint)
    architecture = name_of(config)[:80]
    return ModelLoadError(
        f"{config.path}: no backend here runs the architecture {architecture!r}.", hint=hint
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
