"""Which model made which rows of a map: some are embedded again, the others are like those."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from emberd.atlas.holding import Held
from emberd.config.load import Config
from emberd.errors import SourceError
from emberd.migrate.candidates import Candidates
from emberd.migrate.embedding import Embedder, open_embedder
from emberd.migrate.store_ref import StoreRef
from emberd.models.availability import find_here
from emberd.registry.spec import ModelSpec
from emberd.spaces.lock import LockFile
from emberd.vectors import Matrix

ALIKE = 0.99  # share of checked rows whose nearest other one was made by the same model
BLOCK = 8192

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]
"""Called with the model that embeds now, and how many of how many are done."""


@dataclass(slots=True)
class Group:
    """Rows that one model made; `model` is None for none of those here.

    `checked` of the rows were embedded again; the other `points` are nearest to those.
    """

    model: str | None
    checked: int = 0
    points: int = 0


@dataclass(slots=True)
class Origins:
    """Who made the rows of a map.

    `of_rows` has the place in `groups` plus 1 for each row, `(N,)`; 0: unknown. `checked` says
    which rows were embedded again. `agreement` is the share of these whose nearest other one was
    made by the same model: unless nearly all are, nothing is said of rows that were not checked.
    """

    groups: list[Group]
    of_rows: Bytes
    checked: npt.NDArray[np.bool_]
    agreement: float | None = None

    @classmethod
    def unknown(cls, rows: int) -> "Origins":
        """Return what is known before anything was checked."""
        return cls([], np.zeros(rows, np.uint8), np.zeros(rows, bool))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON, without what each row has."""
        groups = [asdict(group) for group in self.groups]
        return {"groups": groups, "agreement": self.agreement}


def candidates_for(config: Config, held: Held) -> list[ModelSpec]:
    """Return the models on this machine whose vectors have the size of the store's."""
    entries = LockFile(config.homes.state).read()
    return [
        spec
        for spec in config.catalog
        if spec.kind == "embed"
        and held.shape.dimensions in (spec.dimensions, *spec.matryoshka)
        and find_here(spec, config.homes.hub, entries.get(spec.name))
    ]


def find_origins(config: Config, ref: StoreRef, held: Held, progress: Progress) -> Origins:
    """Embed some rows again with every model that fits, by the running server if there is one.

    Raises:
        SourceError: no model on this machine fits.
        EmberdError: the server cannot be asked.
    """
    specs = candidates_for(config, held)
    if not specs:
        raise SourceError(
            f"No model on this machine has vectors of {held.shape.dimensions} dimensions.",
            hint="Pull the model that made the store: `emberd pull NAME`.",
        )
    with open_embedder(config) as embedder:
        return origins_by(specs, embedder, ref, held, progress)


def origins_by(
    specs: list[ModelSpec], embedder: Embedder, ref: StoreRef, held: Held, progress: Progress
) -> Origins:
    """Compare some rows with what these models make of their texts."""
    places = {row.key: place for place, row in held.whole.items()}
    shape = held.shape
    candidates = Candidates(
        list(held.whole.values()), shape.dimensions, ref.input_type, shape.dtype
    )
    for number, spec in enumerate(specs):
        progress(spec.name, number, len(specs))
        candidates.add(spec, embedder, keep=False)
    found = Origins.unknown(len(held.keys))
    for model, keys in candidates.made_by(ref.served_by or "").items():
        found.groups.append(Group(model or None, checked=len(keys)))
        rows = [places[key] for key in keys]
        found.of_rows[rows] = len(found.groups)
        found.checked[rows] = True
    _spread(found, held.vectors)
    for number, group in enumerate(found.groups, 1):
        group.points = int((found.of_rows == number).sum())
    return found


def _spread(origins: Origins, vectors: Matrix) -> None:
    """Give each row that was not checked the group of the nearest one that was.

    Vectors of two models are far apart, so that this tells them apart; but not those of one model
    in two precisions, which the checked rows themselves show.
    """
    known = np.flatnonzero(origins.checked)
    if len(known) < 2:  # there is no other one
        return
    groups, checked = origins.of_rows[known], vectors[known]  # (M,), (M, D)
    likeness = checked @ checked.T
    np.fill_diagonal(likeness, -np.inf)
    origins.agreement = round(float((groups[likeness.argmax(axis=1)] == groups).mean()), 4)
    if origins.agreement < ALIKE:
        return
    for at in range(0, len(vectors), BLOCK):
        nearest = (vectors[at : at + BLOCK] @ checked.T).argmax(axis=1)
        origins.of_rows[at : at + BLOCK] = groups[nearest]
    origins.of_rows[known] = groups
