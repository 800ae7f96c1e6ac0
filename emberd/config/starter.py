"""The config file to begin with, `starter.yaml`: its comments say what most people change."""

from pathlib import Path

from emberd import files
from emberd.errors import ConfigError

STARTER = Path(__file__).with_name("starter.yaml")


def read() -> str:
    """Return its text."""
    return files.read(STARTER).decode()


def write(file: Path) -> None:
    """Write it to a new file, and create the folder if needed.

    Raises:
        ConfigError: the file exists, or cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(read())
    except FileExistsError:
        raise ConfigError(f"{file} already exists.", hint="Edit it, or move it away.") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}.") from None
