"""A model's config.json, with typed access that names file and key when a value is wrong."""

from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError
from emberd.models.json_files import read_object
from emberd.registry.spec import is_below


class ModelConfig:
    """The values of a `config.json`, each checked when it is read."""

    def __init__(self, path: Path, values: dict[str, Any] | None = None) -> None:
        """Read the file, unless its `values` are given."""
        self.path = path
        self._values = read_object(path) if values is None else values

    def changed(self, changes: dict[str, Any]) -> "ModelConfig":
        """Return a copy with other values for some keys."""
        return ModelConfig(self.path, self._values | changes)

    def size(self, key: str, default: int | None = None) -> int:
        """Return a positive integer, or raise `ModelLoadError`."""
        value = self._values.get(key, default)
        if isinstance(value, int) and value > 0:
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a positive integer.")

    def number(self, key: str, default: float) -> float:
        """Return a number, or raise `ModelLoadError`."""
        value = self._values.get(key, default)
        if isinstance(value, int | float):
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a number.")

    def positive(self, key: str, value: object) -> float:
        """Return what `key` was found to state if it is above zero, or raise `ModelLoadError`."""
        if isinstance(value, int | float) and value > 0:
            return float(value)
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a positive number.")

    def expect(self, **only: object) -> None:
        """Raise `ModelLoadError` unless each key is missing or has the only supported value."""
        for key, ours in only.items():
            if (found := self._values.get(key, ours)) != ours:
                raise ModelLoadError(
                    f"{self.path}: {key} is {found!r}; only {ours!r} is supported."
                )

    @property
    def values(self) -> dict[str, Any]:
        """All keys and values, as in the file."""
        return dict(self._values)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - any JSON value
        """Return a value as it is, of any type."""
        return self._values.get(key, default)


def is_file_name(name: object) -> bool:
    """Say whether it names something directly in the folder, not elsewhere."""
    return isinstance(name, str) and "/" not in name and is_below(name)
