"""A change of a config file that can be made and undone; every other byte stays as it is.

What changes in its text is in `insertion.py`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from emberd.config.insertion import entry_lines, with_default, with_model
from emberd.errors import ConfigError
from emberd.files import read
from emberd.flock import locked
from emberd.replacing import replace_file

LOCK_S = 5.0  # another run of this command holds it for milliseconds


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to a file that can be made and undone. `before` is None when there is no file."""

    file: Path
    before: bytes | None
    after: bytes

    @classmethod
    def of_default(cls, file: Path, name: str) -> "Edit":
        """Plan to make `name` the default of a config file; nothing is written.

        Raises:
            ConfigError: the file cannot be read, or has a layout that cannot be edited here.
        """
        by_hand = f"Put `default: {name}` in it yourself; a running server picks it up at once."
        return cls._planned(file, lambda text: with_default(text, name), by_hand)

    @classmethod
    def of_model(
        cls, file: Path, name: str, entry: Mapping[str, object], comments: Mapping[str, str]
    ) -> "Edit":
        """Plan to add the entry `name` to `models`, with comments behind its keys.

        Raises:
            ConfigError: as `of_default`.
        """
        lines = "\n".join(["models:", *entry_lines(name, entry, comments)])
        by_hand = f"Put this in it yourself; a running server picks it up at once:\n{lines}"
        return cls._planned(file, lambda text: with_model(text, name, entry, comments), by_hand)

    @classmethod
    def _planned(cls, file: Path, change: Callable[[str], str], by_hand: str) -> "Edit":
        try:
            before = _content_of(file)
            after = change((before or b"").decode()).encode()
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
        except (ValueError, yaml.YAMLError):
            raise ConfigError(
                f"This command cannot edit a file laid out like {file}.", hint=by_hand
            ) from None
        return cls(file, before, after)

    def commit(self) -> None:
        """Write the change. Raises ConfigError when the file has changed since it was read."""
        self._replace(self.before, self.after)

    def is_in_force(self) -> bool:
        """Whether `commit` changes something and the file holds the result."""
        return self.before != self.after and self._present() == self.after

    def rollback(self) -> None:
        """Restore the exact bytes from before, or an empty file, which means the same as none.

        A file that is already as it was before is left alone.

        Raises:
            ConfigError: somebody has edited it since.
        """
        if self._present() in (self.before, self.before or b""):
            return
        self._replace(self.after, self.before or b"")

    def _present(self) -> bytes | None:
        with suppress(OSError):
            return _content_of(self.file)
        return None

    def _replace(self, expected: bytes | None, content: bytes) -> None:
        try:
            target = self.file.resolve()  # a symlink stays one
            target.parent.mkdir(parents=True, exist_ok=True)
            with locked(target.with_name(f".{target.name}.lock"), LOCK_S, leave=False):
                if _content_of(target) != expected:
                    raise ConfigError(
                        f"{self.file} was edited in the meantime.",
                        hint="Nothing was written. Look at the file, then run the command again.",
                    )
                replace_file(target, content, mode=0o666, keep=True)
        except TimeoutError as error:
            raise ConfigError(
                f"{self.file} was not written: {error.filename}: {error.strerror}.",
                hint="Wait for that process or end it, then run the command again.",
            ) from None
        except OSError as error:
            raise ConfigError(
                f"{self.file} cannot be written: {error.strerror}.",
                hint="Fix the permissions of the file and its folder.",
            ) from None


def _content_of(file: Path) -> bytes | None:
    """Return what a file holds; None if there is no file."""
    try:
        return read(file)
    except FileNotFoundError:
        return None
