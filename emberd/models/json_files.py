"""Reads the JSON files of a model's folder, or fails with an error that names the file."""

import json
from pathlib import Path
from typing import Any

from emberd.errors import ModelLoadError
from emberd.files import read

MEND = "Fix that file or its permissions, or get it again from where the model came from."


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or raise `ModelLoadError`."""
    values = read_json(path)
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} is damaged: not a JSON object.", hint=MEND)
    return values


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the JSON value in a file, or raise `ModelLoadError`."""
    try:
        return json.loads(read(path))
    except FileNotFoundError:
        raise ModelLoadError(f"{path} is missing.", hint=MEND) from None
    except RecursionError:
        raise ModelLoadError(f"{path} is damaged: nested too deep.", hint=MEND) from None
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor UTF-8
        raise ModelLoadError(f"{path} cannot be read: {error}.", hint=MEND) from error


def read_optional(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or an empty one if there is no such file."""
    return read_object(path) if is_there(path) else {}


def is_there(path: Path) -> bool:
    """Say whether the file exists; one that we may not read counts, and reading it then fails."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
