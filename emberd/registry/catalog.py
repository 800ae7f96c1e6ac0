"""Looks up a ModelSpec by name or alias, and does nothing else.

A catalog is built from specs and never changes; a changed config file makes a new one. Whether a
model is here is the business of `models.availability`, and whether it is running that of the pool.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from emberd.errors import ConfigError, UnknownModelError
from emberd.registry.spec import ModelSpec

LATEST = ":latest"  # the tag that Ollama assumes
LONGEST_SHOWN = 200  # characters of an unknown name


class Catalog:
    """The models this server offers, by name, by alias and by Hub id.

    Two entries must not share a name or alias. Names and aliases win over Hub ids; a Hub id that
    several entries list means the first of them. If nothing matches exactly, `name:latest` is tried
    as `name`, and then everything again without regard to case.
    """

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._by_name = {spec.name: spec for spec in specs}
        self._by_label: dict[str, ModelSpec] = dict(self._by_name)
        for spec in self:
            for alias in spec.aliases:
                taken = self._by_label.setdefault(alias, spec)
                if taken is not spec:
                    raise ConfigError(
                        f"The alias {alias!r} belongs to both {taken.name!r} and {spec.name!r}.",
                        hint=f"Remove it from models.{spec.name}.aliases.",
                    )
        for spec in self:
            for hub_id in spec.hub_ids:
                self._by_label.setdefault(hub_id, spec)
        self._by_folded: dict[str, ModelSpec] = {}
        for label, spec in self._by_label.items():  # names first, then aliases, then Hub ids
            self._by_folded.setdefault(label.casefold(), spec)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._by_name.values())

    def get(self, name: str) -> ModelSpec:
        """Return the spec called `name`, or raise `UnknownModelError` with the nearest names."""
        folded = name.casefold()
        for labels, label in ((self._by_label, name), (self._by_folded, folded)):
            found = labels.get(label) or labels.get(label.removesuffix(LATEST))
            if found:
                return found
        wanted = folded.removesuffix(LATEST)[:LONGEST_SHOWN]  # comparing long names is slow
        nearest = get_close_matches(wanted, self._by_label, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "Run `emberd list`."
        message = f"No model is called {name[:LONGEST_SHOWN]!r}."
        raise UnknownModelError(message, hint=hint, field="model")
