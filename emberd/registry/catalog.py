"""Name or alias -> ModelSpec, and nothing else.

A catalog is built once from specs and never changes; another YAML makes a new one. It does not
know whether a model is downloaded or running: ask the lock or the pool.
"""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from emberd.errors import ConfigError, UnknownModelError
from emberd.registry.spec import ModelSpec

LATEST = ":latest"  # Ollama's tag for a name without one
LONGEST_SHOWN = 200  # characters of a name that nobody has


class Catalog:
    """The models this server offers, by name, by alias and by Hub id.

    A name or alias that two entries claim is an error. Both beat a Hub id; a Hub id that several
    entries list among their sources means the first of them. Where nothing is called exactly so,
    `name:latest` is `name`, and then upper and lower case are the same, in the same order.
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
        """Return the spec called `name`, or raise `UnknownModelError` naming the nearest ones."""
        folded = name.casefold()
        for labels, label in ((self._by_label, name), (self._by_folded, folded)):
            found = labels.get(label) or labels.get(label.removesuffix(LATEST))
            if found:
                return found
        wanted = folded.removesuffix(LATEST)[:LONGEST_SHOWN]  # comparing takes long for a long one
        nearest = get_close_matches(wanted, self._by_label, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "Run `emberd list`."
        message = f"No model is called {name[:LONGEST_SHOWN]!r}."
        raise UnknownModelError(message, hint=hint, field="model")
