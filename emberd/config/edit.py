"""Change one key of a config file and leave every other byte as it is.

The parser that reads the file also says where the key is, and only its value is replaced: dumping
the whole document, even with a library that keeps comments, would rewrite spaces, line ends and
lists. The result is parsed again and must differ in that key alone.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from emberd.config.document import parse
from emberd.errors import ConfigError
from emberd.files import read
from emberd.flock import locked
from emberd.replacing import replace_file

KEY = "default"
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
        try:
            before = _content_of(file)
            after = _with_default((before or b"").decode(), name).encode()
        except OSError as error:
            raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
        except (ValueError, yaml.YAMLError):
            raise ConfigError(
                f"This command cannot edit a file laid out like {file}.",
                hint=f"Put `{KEY}: {name}` in it yourself; a running server picks it up at once.",
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


def _with_default(text: str, name: str) -> str:
    """Return `text` with the value of the key replaced, or the key added.

    Raises:
        ValueError, yaml.YAMLError: not YAML, not a mapping, or another key would change too.
    """
    plain, data = parse(text)
    root = yaml.compose(plain, Loader=yaml.SafeLoader)
    if data is not None and not isinstance(root, yaml.MappingNode):
        raise ValueError("not a mapping")
    keys = root.value if isinstance(root, yaml.MappingNode) else []
    there = next((value for key, value in keys if key.value == KEY), None)
    is_json = _is_json(text)
    if there is not None:
        begin, end = there.start_mark.index, there.end_mark.index
        end = begin + len(text[begin:end].rstrip())  # a multi-line value includes the line end
        space = " " if text[begin - 1] == ":" else ""
        style = there.style if isinstance(there, yaml.ScalarNode) else None
        written = json.dumps(name) if is_json else _scalar(name, style)
        changed = text[:begin] + space + written + text[end:]
    elif isinstance(root, yaml.MappingNode) and root.flow_style:
        changed = _into_braces(text, root, f'"{KEY}": {json.dumps(name)}')
    else:
        indent = " " * keys[0][0].start_mark.column if keys else ""
        changed = _append(text, f"{indent}{KEY}: {_scalar(name)}")
    if parse(changed)[1] != {**(data or {}), KEY: name}:
        raise ValueError("another key would change")
    return changed


def _into_braces(text: str, root: yaml.MappingNode, entry: str) -> str:
    """Add an entry at the front, on its own line if the next entry is on its own line."""
    if not root.value:
        begin = root.start_mark.index + 1
        return text[:begin] + entry + text[begin:]
    first = root.value[0][0].start_mark.index
    indent = text[:first].rpartition("\n")[2]
    between = " " if indent.strip() else _line_end(text) + indent
    return text[:first] + entry + "," + between + text[first:]


def _append(text: str, entry: str) -> str:
    """Add an entry at the end; at the front it could separate a comment from its key."""
    end = _line_end(text)
    between = "" if not text or text.endswith("\n") else end
    return text + between + entry + end


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _scalar(name: str, style: str | None = None) -> str:
    """Return a name as YAML, in the quotes it had, or quoted if it would be read as a number."""
    kept = style if style in ("'", '"') else None
    dumped: str = yaml.safe_dump(name, default_style=kept, width=10**6)
    return dumped.removesuffix("\n").removesuffix("\n...")
