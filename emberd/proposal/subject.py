"""The model that somebody adds, as the kinds of models see it: each has lines of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from emberd.backends.base import LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.config import ModelConfig
from emberd.folder.reading import Folder
from emberd.proposal.lines import Chosen, Finding, Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was read of a model. `label` is what people call it, `hidden_size` as in config.json."""

    read: Folder
    config: ModelConfig
    chosen: Chosen
    label: str
    hidden_size: int
    precision: list[Finding]

    def checkpoint(self, *found: Finding) -> Checkpoint:
        """Return what a worker that is asked to load it with these lines would read first.

        Raises:
            ModelLoadError: it would be refused.
        """
        given = (*found, *self.precision)
        stated = {line.key: line.value for line in given if isinstance(line, Line)}
        request = LoadRequest(
            folder=self.read.path,
            **{"pooling": "mean", **stated},
            compute="auto",
            cache=Path(),
            cache_key="",
        )
        return Checkpoint(request, applies_heads=True)


class OwnLines(NamedTuple):
    """The lines of a kind: those `above` the lines that all kinds have, and those `below` them."""

    above: list[Finding]
    below: list[Finding]
