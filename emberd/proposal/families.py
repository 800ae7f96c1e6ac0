"""What emberd itself knows about families of models: `families.yaml`, which names its sources."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from emberd.config.document import read_own

TABLE = Path(__file__).with_name("families.yaml")
_CONVERTED = re.compile(r"(-(4bit|8bit|bf16|fp16|mlx))+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models that take the same prompts; `prompts` are by input type."""

    name: str
    prompts: Mapping[str, str]


def find_family(label: str) -> Family | None:
    """Return the family of a repository or folder, by the last part of its name, or None."""
    wanted = _CONVERTED.sub("", _last(label))
    for name, told in read_own(TABLE).items():
        if wanted in map(_last, told["models"]):
            return Family(name=name, prompts=told["prompts"])
    return None


def _last(label: str) -> str:
    return label.rpartition("/")[2].lower()
