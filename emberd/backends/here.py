"""On which backends a model runs on this machine. What they compute with is not imported.

So a library that is installed but does not work still counts; `emberd doctor` tries it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from emberd.backends import plugins
from emberd.backends.architectures.native import name_of
from emberd.backends.config import ModelConfig
from emberd.errors import EmberdError, ModelLoadError
from emberd.registry.spec import ModelSpec

WhyNot = Literal["backend", "architecture", "unknown"]
"""The entry's backend is not installed; no backend here runs the architecture; it is not known."""

Installed = Mapping[str, frozenset[str]]
"""The backends whose library is installed, and the architectures that each says it runs."""


@dataclass(frozen=True, slots=True)
class RunsOn:
    """The names of the backends that run a model here; `why_not` only if there is none."""

    backends: tuple[str, ...]
    why_not: WhyNot | None = None


def installed() -> Installed:
    """Return the backends that can be used here, as far as that is known without a try."""
    found: dict[str, frozenset[str]] = {}
    for name in plugins.names():
        try:
            backend = plugins.load(name)
            for library in backend.libraries[:1]:  # the one that computes
                metadata.version(library)
        except (EmberdError, metadata.PackageNotFoundError):
            continue
        found[name] = plugins.architectures(backend)
    return found


def architecture_of(spec: ModelSpec, folder: str | Path | None) -> str | None:
    """Return a model's architecture: what its folder says if it is here, else what its entry says.

    An entry may say less: a `model_type` that has variants.
    """
    if folder:
        with suppress(ModelLoadError):  # loading will tell
            config = ModelConfig(Path(folder, "config.json"))
            if config.get("model_type"):
                return name_of(config)
    return spec.architecture


def runs_on(backend: str, architecture: str | None, here: Installed) -> RunsOn:
    """Return where a model runs.

    Args:
        backend: the one that its entry names, or `auto`. A backend that does not say what it runs
            only counts if the entry names it.
        architecture: what `architecture_of` returned.
        here: what `installed` returned.
    """
    if backend == "auto":
        able = tuple(name for name, runs in here.items() if architecture in runs)
    elif backend in here:
        able = (backend,) if not here[backend] or architecture in here[backend] else ()
    else:
        return RunsOn((), "backend")
    if able:
        return RunsOn(able)
    return RunsOn((), "architecture" if architecture else "unknown")
