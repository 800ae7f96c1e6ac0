"""Proposes an entry for a model: reads its files, states what they say, asks for the rest.

It does what loading the entry does with these files, so that an entry which would be refused then
is refused now, before anything is written or downloaded.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emberd.backends.architectures.native import name_of
from emberd.backends.config import ModelConfig
from emberd.backends.plugins import any_architecture
from emberd.config.insertion import entry_lines
from emberd.folder.reading import read_folder
from emberd.proposal import embedding, lines, reranking, sparse
from emberd.proposal.card import Card, read_card
from emberd.proposal.lines import Chosen, Finding, Line, Open
from emberd.proposal.place import Place
from emberd.proposal.runner import Runner, find_runner, refuse_own_steps
from emberd.proposal.subject import OwnLines, Subject
from emberd.registry.spec import Kind
from emberd.units import format_plain

_OWN_LINES: Mapping[Kind, Callable[[Subject], OwnLines]] = {
    "embed": embedding.own_lines,
    "rerank": reranking.own_lines,
    "sparse": sparse.own_lines,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """An entry that nobody has accepted yet.

    Attributes:
        name: what the model would be called.
        place: where its files were read.
        size_bytes: of the files that would be used, weights included.
        lines: the keys that are known.
        open: the keys that must be stated; without them there is no entry.
        notes: what else to know, in sentences.
        card: what the model's card says.
    """

    name: str
    place: Place
    size_bytes: int
    lines: tuple[Line, ...]
    open: tuple[Open, ...]
    notes: tuple[str, ...]
    card: Card

    @property
    def entry(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {line.key: line.value for line in self.lines}

    @property
    def origins(self) -> dict[str, str]:
        """Where each key comes from."""
        return {line.key: line.origin for line in self.lines}

    def as_yaml(self) -> str:
        """Return the entry as it goes into the config file; open keys are comments."""
        missing = (f"    # {each.key}: ?  {each.why}" for each in self.open)
        return "\n".join(["models:", *entry_lines(self.name, self.entry, self.origins), *missing])

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "name": self.name,
            "entry": self.entry,
            "origins": self.origins,
            "yaml": self.as_yaml(),
            "open": [asdict(each) for each in self.open],
            "notes": list(self.notes),
            "card": {
                "licence": self.card.licence,
                "languages": list(self.card.languages),
                "base_models": list(self.card.base_models),
            },
            "read_from": str(self.place.folder),
            "size_bytes": self.size_bytes,
        }


def short_name(label: str) -> str:
    """Return a name for a repository or folder: the last part, in lower case, without odd signs."""
    last = label.rpartition("/")[2].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("-._") or "model"


def propose(place: Place, name: str, chosen: Chosen, *, usual_backend: str) -> Proposal:
    """Propose an entry for the model at a place.

    Args:
        place: where its files are.
        name: what it will be called.
        chosen: what the user states in place of what the files say, or because none does.
        usual_backend: the backend that the entry would have by itself.

    Raises:
        ModelLoadError: a file is damaged, no backend runs the model, or it wants its own code.
        SourceError: a repository has no weights.
        BadOptionError: what the user chose contradicts a file.
    """
    card = read_card(place.folder)
    config = ModelConfig(place.folder / "config.json")
    kind = _kind(place.folder, config, chosen.kind)
    runner = find_runner(place, config, usual_backend, kind.value if kind else "embed")
    found = [*_findings(place, config, chosen, runner, kind), *lines.of_card(card)]
    return Proposal(
        name=name,
        place=place,
        size_bytes=place.size_bytes(runner.backend.files),
        lines=tuple(each for each in found if isinstance(each, Line)),
        open=tuple(each for each in found if isinstance(each, Open)),
        notes=tuple(each for each in found if isinstance(each, str)),
        card=card,
    )


def _kind(folder: Path, config: ModelConfig, chosen: Kind | None) -> Line | None:
    """Return the line of a model that is not of the usual kind."""
    if by := sparse.said_by(folder, chosen):
        return Line("kind", "sparse", by)
    by = reranking.said_by(folder, config, chosen)
    return Line("kind", "rerank", by) if by else None


def _findings(
    place: Place, config: ModelConfig, chosen: Chosen, runner: Runner, kind: Line | None
) -> Iterator[Finding]:
    """Say all but the licence; `kind` is None for a model that embeds."""
    place.require_weights(runner.name)
    refuse_own_steps(place.folder)
    read = read_folder(place.folder)
    if any_architecture(runner.backend):
        precision = list(lines.of_precision_as_is(place.weights(runner.name)[0], chosen.precision))
    else:
        precision = list(lines.of_precision(config, chosen.precision))
    subject = Subject(
        read=read,
        config=config,
        chosen=chosen,
        label=place.label,
        hidden_size=runner.hidden_size(config),
        precision=precision,
    )
    own = _OWN_LINES[kind.value if kind else "embed"](subject)
    yield from lines.of_source(place)
    yield from [kind] if kind else []
    yield from own.above
    yield from lines.of_limit(read, chosen.max_tokens)
    yield from precision
    yield from own.below
    architecture = format_plain(name_of(config))
    if runner.why:
        yield Line("backend", runner.name, runner.why)
    if config.get("auto_map"):
        yield (
            f"config.json names Python code of the model's own (auto_map). {runner.name} runs"
            f" {architecture} without it."
        )
    yield Line("architecture", architecture, "config.json (model_type)")
