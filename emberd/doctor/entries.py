"""Checks a config file's models and stores against what is installed and downloaded.

A server only finds these mistakes when it loads the model or opens the store; `config check` finds
them earlier. Each is a `ConfigError` with file, line and key.
"""

from collections.abc import Sequence
from pathlib import Path

from emberd.backends import plugins as backend_plugins
from emberd.backends.architectures.native import read_architecture
from emberd.backends.config import ModelConfig
from emberd.config.document import Document, read_document
from emberd.config.load import Config, is_built_in
from emberd.errors import (
    BackendError,
    BadOptionError,
    ConfigError,
    ModelLoadError,
    UnknownModelError,
    WrongKindError,
)
from emberd.files import is_folder
from emberd.folder.differences import differences
from emberd.folder.reading import Folder, read_folder
from emberd.models.availability import find_here
from emberd.models.local import lacks
from emberd.models.modules import read_pooling
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockFile
from emberd.stores import plugins as store_plugins


def check_models(config: Config) -> list[str]:
    """Check the backend and the files of every model in the config file.

    Returns:
        Where models' folders disagree with their entries, in words.

    Raises:
        ConfigError: a backend is not installed, or the files contradict the entry.
    """
    document = read_document(config.homes.config)
    backends = ["auto", *backend_plugins.names()]
    notes: list[str] = []
    for name in document.data.get("models") or {}:
        spec = config.catalog.get(str(name))
        _check_backend(document, spec, backends)
        folder = _folder_of(document, config, spec)
        if folder is None:
            continue
        _check_max_tokens(document, spec, folder)
        _check_pooling(document, spec, folder)
        try:
            check_architecture(spec, folder.path)
        except BackendError as error:
            raise _wrong(document, ("models", name, "sources"), error.message, error.hint) from None
        notes += [
            each.told(spec.name)
            for each in differences(folder, spec)
            if not is_built_in(spec, each.key)
        ]
    return notes


def _wrong(
    document: Document, keys: tuple[str, str, str], problem: str, hint: str | None
) -> ConfigError:
    """Return the error for a key of a model or a store, with its place in the file."""
    return ConfigError(f"{document.where(keys)}: {'.'.join(keys)}: {problem}", hint=hint)


def _check_backend(document: Document, spec: ModelSpec, backends: Sequence[str]) -> None:
    if spec.backend not in backends:
        raise _wrong(
            document, ("models", spec.name, "backend"),
            f"no backend {spec.backend!r} is installed.", f"Installed: {', '.join(backends)}.",
        )  # fmt: skip


def _check_max_tokens(document: Document, spec: ModelSpec, folder: Folder) -> None:
    if folder.positions is not None and (spec.max_tokens or 0) > folder.positions:
        raise _wrong(
            document, ("models", spec.name, "max_tokens"),
            f"{spec.max_tokens} is more than the {folder.positions} that the files in"
            f" {folder.path} allow.",
            "Lower it, or remove the key.",
        )  # fmt: skip


def _check_pooling(document: Document, spec: ModelSpec, folder: Folder) -> None:
    pooling = read_pooling(folder.path)
    if pooling.modes and pooling.modes != {spec.pooling}:
        raise _wrong(
            document, ("models", spec.name, "pooling"),
            f"{spec.pooling}, but {pooling.path} says {' + '.join(sorted(pooling.modes))}.",
            "Use what that file says, or another model if emberd does not support that pooling.",
        )  # fmt: skip


def check_architecture(spec: ModelSpec, folder: Path) -> None:
    """Check that the model's backend runs what its config.json describes.

    Raises:
        BackendError: it does not, or cannot be imported.
    """
    name = backend_plugins.resolve(spec.backend)
    runs = backend_plugins.architectures(backend_plugins.load(name))
    if runs:
        read_architecture(ModelConfig(folder / "config.json"), backend=name, runs=runs)


def _folder_of(document: Document, config: Config, spec: ModelSpec) -> Folder | None:
    """Return what the model's folder says; None if its files are not downloaded yet."""
    try:
        here = find_here(spec, config.homes.hub, LockFile(config.homes.state).read().get(spec.name))
        if here:
            return read_folder(here.folder)
        places = [Path(source.path) for source in spec.sources if source.path]
        if len(places) == len(spec.sources):  # nothing to download them from
            place = next((place for place in places if is_folder(place)), places[0])
            if missing := lacks(place, spec.backend):
                raise missing
    except ModelLoadError as error:
        keys = ("models", spec.name, "sources")
        raise _wrong(document, keys, error.message, error.hint) from None
    return None


def check_stores(config: Config) -> None:
    """Check the kind and the model of every configured store.

    Raises:
        ConfigError: the kind is not installed, or there is no such model, or its name states
            another role than `input_type`.
    """
    document = read_document(config.homes.config)
    kinds = store_plugins.kinds()
    for name, store in config.settings.stores.items():
        if store.kind and store.kind not in kinds:
            raise _wrong(
                document, ("stores", name, "kind"),
                f"no store kind {store.kind!r} is installed.", f"Installed: {', '.join(kinds)}.",
            )  # fmt: skip
        try:
            if store.model:
                config.catalog.find(store.model, store.input_type, kinds=("embed",))
        except (UnknownModelError, WrongKindError, BadOptionError) as error:
            keys = ("stores", name, "model")
            raise _wrong(document, keys, error.message, error.hint) from None
