"""The JSON files of a model's weights: read whole, and refused by name when they are damaged."""

from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError
from emberd.models.folder import read_object
from emberd.registry.spec import is_below


class Config:
    """`config.json`, with values of the type that is asked for."""

    def __init__(self, path: Path, values: dict[str, Any] | None = None) -> None:
        """Read it, unless its `values` are known."""
        self.path = path
        self._values = read_object(path) if values is None else values

    def changed(self, changes: dict[str, Any]) -> "Config":
        """Return it with other values for some keys."""
        return Config(self.path, self._values | changes)

    def size(self, key: str) -> int:
        """Return a whole number above zero, or raise `ModelLoadError`."""
        value = self._values.get(key)
        if isinstance(value, int) and value > 0:
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a whole number above zero.")

    def number(self, key: str, default: float) -> float:
        """Return a number, or raise `ModelLoadError`."""
        value = self._values.get(key, default)
        if isinstance(value, int | float):
            return value
        raise ModelLoadError(f"{self.path}: {key} is {value!r}, not a number.")

    def expect(self, **only: object) -> None:
        """Raise `ModelLoadError` unless each key is missing or has the one value that is known."""
        for key, ours in only.items():
            if (found := self._values.get(key, ours)) != ours:
                raise ModelLoadError(f"{self.path}: {key} is {found!r}; only {ours!r} is known.")

    @property
    def values(self) -> dict[str, Any]:
        """All of it, as it stands there."""
        return dict(self._values)

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - whatever JSON holds
        """Return what is there."""
        return self._values.get(key, default)


def is_file_name(name: object) -> bool:
    """Say whether it names something right in the folder, and nothing elsewhere."""
    return isinstance(name, str) and "/" not in name and is_below(name)
