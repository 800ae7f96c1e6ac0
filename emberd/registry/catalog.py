"""Looks up what a name means: a ModelSpec, and the role of the texts if the name states one.

A catalog is built from specs and never changes; a changed config file makes a new one. Whether a
model is here is the business of `models.availability`, and whether it is running that of the pool.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import NamedTuple, Self, get_args

from emberd.errors import BadOptionError, ConfigError, UnknownModelError, WrongKindError
from emberd.registry.spec import KINDS, AskedRole, InputType, Kind, ModelSpec

ROLES: tuple[InputType, ...] = get_args(InputType)
LATEST = ":latest"  # the tag that Ollama assumes
LONGEST_SHOWN = 200  # characters of an unknown name
MOST_LISTED = 6  # models
DOES: Mapping[Kind, str] = {
    "embed": "embeds texts",
    "rerank": "re-ranks texts for a query",
    "sparse": "makes sparse vectors of texts",
}


class Named(NamedTuple):
    """What a name means: a model, and the role of the texts; None if the name does not say."""

    spec: ModelSpec
    role: InputType | None = None

    @property
    def label(self) -> str:
        """A name that means the same: `bge-small`, or `bge-small:query`."""
        return f"{self.spec.name}:{self.role}" if self.role else self.spec.name


class Catalog:
    """The models this server offers, by name, by alias and by Hub id.

    Two entries must not share a name or alias. Names win over `aliases`, which are not part of any
    entry; these over the entries' own, and those over Hub ids. A Hub id that several entries list
    means the first of them. If nothing matches exactly, `name:latest` is tried as `name`, and then
    everything again without regard to case. Only then is `name:query` a name with a role.
    """

    def __init__(
        self, specs: Iterable[ModelSpec], aliases: Mapping[str, Named] = MappingProxyType({})
    ) -> None:
        self._by_name = {spec.name: spec for spec in specs}
        self._aliases = aliases
        names = {spec.name: Named(spec) for spec in self}
        of_entries: dict[str, Named] = {}
        hub_ids: dict[str, Named] = {}
        for spec in self:
            for alias in spec.aliases:
                taken = names.get(alias) or of_entries.setdefault(alias, Named(spec))
                if taken.spec is not spec:
                    raise ConfigError(
                        f"The alias {alias!r} belongs to both {taken.spec.name!r} and"
                        f" {spec.name!r}.",
                        hint=f"Remove it from models.{spec.name}.aliases.",
                    )
            for hub_id in spec.hub_ids:
                hub_ids.setdefault(hub_id, Named(spec))
        self._by_label: dict[str, Named] = {}
        self._by_folded: dict[str, Named] = {}
        for labels in (names, aliases, of_entries, hub_ids):
            for label, named in labels.items():
                self._by_label.setdefault(label, named)
                self._by_folded.setdefault(label.casefold(), named)
        self._listed: dict[str, dict[str, Named]] = {name: {} for name in names}
        for label in (*names, *of_entries, *aliases):
            named = self._by_label[label]
            self._listed[named.spec.name][label] = named

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._by_name.values())

    def only(self, names: Collection[str]) -> Self:
        """Return a catalog with the models of these names alone."""
        kept = [spec for spec in self if spec.name in names]
        aliases = {
            alias: named for alias, named in self._aliases.items() if named.spec.name in names
        }
        return type(self)(kept, aliases)

    def get(self, name: str) -> ModelSpec:
        """Return the spec called `name`, with or without a role, or raise `UnknownModelError`."""
        return self.find(name).spec

    def find(
        self, name: str, asked: AskedRole | None = None, *, kinds: Sequence[Kind] = KINDS
    ) -> Named:
        """Return what `name` means, with the role that it states or else the one `asked` for.

        Raises:
            UnknownModelError: nothing is called so; the hint has the nearest names.
            WrongKindError: the model is of none of the `kinds` that are needed.
            BadOptionError: the name states another role than the one asked for.
        """
        named = self._called(name) or self._with_role(name)
        if named is None:
            raise self._unknown(name)
        if named.spec.kind not in kinds:
            raise self._of_another_kind(named.spec, kinds[0])
        if asked and named.role not in (None, asked):
            other = "a task without a prompt" if asked == "none" else asked
            raise BadOptionError(
                f"The name {name!r} says that the texts are of the role {named.role}, but {other}"
                " is asked for.",
                hint=f"Leave the input type out, or use the name {named.spec.name}, which states no"
                " role.",
                field="input_type",
            )
        return Named(named.spec, named.role or (asked if asked != "none" else None))

    def names(self, spec: ModelSpec) -> Mapping[str, InputType | None]:
        """Return the names under which to list a model, its own first, and the role each states.

        Hub ids are left out, and so are names with a role if the model treats both roles alike.
        """
        listed = {label: named.role for label, named in self._listed[spec.name].items()}
        if spec.tells_roles_apart:
            for role in ROLES:
                listed.setdefault(Named(spec, role).label, role)
        return listed

    def _called(self, name: str) -> Named | None:
        folded = name.casefold()
        for labels, label in ((self._by_label, name), (self._by_folded, folded)):
            found = labels.get(label) or labels.get(label.removesuffix(LATEST))
            if found:
                return found
        return None

    def _with_role(self, name: str) -> Named | None:
        label, role = _split(name)
        named = self._called(label) if role else None
        return Named(named.spec, role) if named and named.role in (None, role) else None

    def _of_another_kind(self, spec: ModelSpec, needed: Kind) -> WrongKindError:
        able = [each.name for each in self if each.kind == needed]
        able = able[-1:] + able[:-1]  # the last is the user's own, if any is
        more = f", and {len(able) - MOST_LISTED} more" if len(able) > MOST_LISTED else ""
        return WrongKindError(
            f"{spec.name} {DOES[spec.kind]}; needed is a model that {DOES[needed]}.",
            hint=f"Such models are {', '.join(able[:MOST_LISTED])}{more}."
            if able
            else f"Add one to the config file, of kind {needed}.",
            field="model",
        )

    def _unknown(self, name: str) -> UnknownModelError:
        wanted = name.casefold().removesuffix(LATEST)[:LONGEST_SHOWN]  # comparing long ones is slow
        wanted, role = _split(wanted)
        labels = [each for each, named in self._by_label.items() if not (role and named.role)]
        nearest = get_close_matches(wanted, labels, n=3, cutoff=0.5)
        nearest = [f"{each}:{role}" if role else each for each in nearest]
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "Run `emberd list`."
        before = name.rpartition(":")[0]
        if named := self._called(before) or self._with_role(before):
            able = " or ".join(f"{before}:{role}" for role in ROLES)
            hint += (
                f" {before} already states the role {named.role}."
                if named.role
                else f" Only a role can follow {before}: {able}."
            )
        message = f"No model is called {name[:LONGEST_SHOWN]!r}."
        return UnknownModelError(message, hint=hint, field="model")


def _split(name: str) -> tuple[str, InputType | None]:
    """Split the role off a name that ends with one: `BGE:Query` into `BGE` and `query`."""
    if name.casefold().endswith(LATEST):
        name = name[: -len(LATEST)]
    label, _, last = name.rpartition(":")
    role = next((role for role in ROLES if role == last.casefold()), None)
    return (label, role) if role else (name, None)
