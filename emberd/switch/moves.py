"""The stores that follow the default, planned and embedded again together with the switch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.config.load import Config
from emberd.migrate import known
from emberd.migrate.check import note_target
from emberd.migrate.embedding import Embedder, Target, find_target
from emberd.migrate.plan import Plan
from emberd.migrate.plan import plan as plan_migration
from emberd.migrate.run import RunOptions, migrate_all
from emberd.migrate.stage import ProgressCallback
from emberd.migrate.store_ref import StoreRef, require_separate_files
from emberd.migrate.textless import complete
from emberd.migrate.verify import Migrated
from emberd.switch.switch import Switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """`pending` are the stores to embed again; `there` hold the target's vectors already."""

    target: Target
    embedder: Embedder
    state: Path
    pending: Sequence[tuple[StoreRef, Plan]]
    there: Sequence[tuple[StoreRef, Plan]]
    options: RunOptions

    def run(
        self, switch: Switch, progress: Callable[[StoreRef], ProgressCallback]
    ) -> dict[str, Migrated]:
        """Move the pending stores and commit the switch, or do none of it.

        Returns:
            What came of each store, by name.

        Raises:
            EmberdError: something failed; everything is as it was.
        """
        stores = [ref for ref, _ in self.pending]
        return migrate_all(
            stores,
            self.target,
            self.embedder,
            self.state,
            participant=switch,
            options=self.options,
            progress=progress,
        )

    def note_there(self, config: Config) -> None:
        """Note of the stores that need no move which space they are in. Raises ConfigError."""
        for ref, plan in self.there:
            note_target(config, ref, plan.target)


def open_followers(config: Config) -> list[StoreRef]:
    """Open the configured stores that follow the default.

    Raises:
        StoreError: one cannot be opened, or two of them lie in one file.
    """
    stores = known.served_by_default(config)
    require_separate_files(stores)
    return stores


def plan_moves(
    config: Config,
    stores: Sequence[StoreRef],
    embedder: Embedder,
    name: str,
    *,
    dry_run: bool,
    set_aside: bool = False,
) -> Moves:
    """Plan to embed every store again with the model `name`.

    Unless it is a dry run, rows whose text came late, in stores that need no move, get their
    vectors now. `set_aside` moves vectors without a text out of the store.

    Raises:
        StoreError: a store cannot be read, or has vectors without a text that are not to be set
            aside; it is named.
    """
    state = config.homes.state
    target = find_target(config, embedder, name)
    plans: list[tuple[StoreRef, Plan]] = []
    for ref in stores:
        with known.naming(ref.name):
            wanted = replace(target, input_type=ref.input_type)
            if not dry_run:
                complete(ref, wanted, embedder, state)
            plans.append((ref, plan_migration(ref, wanted, embedder, state, set_aside=set_aside)))
    return Moves(
        target=target,
        embedder=embedder,
        state=state,
        pending=[(ref, plan) for ref, plan in plans if not plan.there],
        there=[(ref, plan) for ref, plan in plans if plan.there],
        options=RunOptions(set_aside=set_aside),
    )
