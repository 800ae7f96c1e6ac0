"""What a model's card says for programs: the YAML between `---` at the beginning of README.md.

Format: https://huggingface.co/docs/hub/model-cards. A card may hold thousands of lines of results,
so only the few keys that are used are parsed, as text: `no` is Norwegian, not false.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from emberd.files import read
from emberd.units import format_plain

FILE = "README.md"
MOST_BYTES = 4 * 2**20
_KEYS = ("license", "license_name", "language", "base_model")
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_SECTION = re.compile(rf"^(?:{'|'.join(_KEYS)}):.*(?:\n(?:[ \t-].*)?)*", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the card says, as it says it. `problem` is why it could not be read."""

    licence: str | None = None
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    problem: str | None = None


def read_card(folder: Path) -> Card:
    """Read the card in a model's folder; one that is missing, damaged or too large says nothing."""
    try:
        text = read(folder / FILE, MOST_BYTES).decode(errors="replace")
        front = _FRONT.match(text)
        sections = _SECTION.findall(front[1].replace("\r\n", "\n")) if front else []
        said = yaml.load("\n".join(sections), yaml.BaseLoader)  # noqa: S506 - it makes only texts
    except FileNotFoundError:
        return Card(problem=f"there is no {FILE}")
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return Card(problem=f"the metadata in {FILE} cannot be read")
    values = {key: _texts(said.get(key)) for key in _KEYS} if isinstance(said, dict) else {}
    licences = values.get("license", ())
    if licences == ("other",):
        licences = values["license_name"] or licences
    return Card(
        licence=", ".join(licences) or None,
        languages=values.get("language", ()),
        base_models=values.get("base_model", ()),
    )


def _texts(value: object) -> tuple[str, ...]:
    """Return a text, or the texts of a list, without what a terminal would obey."""
    found = value if isinstance(value, list) else [value]
    return tuple(filter(None, (format_plain(each) for each in found if isinstance(each, str))))
