"""Plans and migrates the stores that follow the default, together with the switch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.config.load import Config
from emberd.migrate import known
from emberd.migrate.check import note_target
from emberd.migrate.embedding import Embedder, Target, find_target, in_dtype
from emberd.migrate.joint_run import RunOptions, migrate_all
from emberd.migrate.plan import Plan
from emberd.migrate.plan import plan as plan_migration
from emberd.migrate.stage import ProgressCallback
from emberd.migrate.store_ref import StoreRef, require_separate_files
from emberd.migrate.textless import complete
from emberd.migrate.verify import Migrated
from emberd.switch.switch import Switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """`pending` are the stores to embed again; `there` already hold the target's vectors."""

    target: Target
    embedder: Embedder
    state: Path
    pending: Sequence[tuple[StoreRef, Plan]]
    there: Sequence[tuple[StoreRef, Plan]]
    options: RunOptions

    def run(
        self, switch: Switch, progress: Callable[[StoreRef], ProgressCallback]
    ) -> dict[str, Migrated]:
        """Migrate the pending stores and commit the switch, or change nothing.

        Returns:
            The outcome for each store, by name.

        Raises:
            EmberdError: something failed; everything is as it was.
        """
        return migrate_all(
            [ref for ref, _ in self.pending],
            {ref.name: plan.target for ref, plan in self.pending},
            self.embedder,
            self.state,
            participant=switch,
            options=self.options,
            progress=progress,
        )

    def note_there(self, config: Config) -> None:
        """Note the space of the stores that need no migration. Raises ConfigError."""
        for ref, plan in self.there:
            note_target(config, ref, plan.target)


def open_followers(config: Config) -> list[StoreRef]:
    """Open the configured stores that follow the default.

    Raises:
        StoreError: one cannot be opened, or two of them are in the same file.
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

    Unless it is a dry run, vectors that were set aside for lack of a text are put back now if their
    text has arrived. `set_aside` moves vectors without a text out of the store.

    Raises:
        StoreError: one cannot be read, or has vectors without a text that must not be set aside.
            The message names it.
    """
    state = config.homes.state
    target = find_target(config, embedder, name)
    plans: list[tuple[StoreRef, Plan]] = []
    for ref in stores:
        with known.naming(ref.name):
            wanted = in_dtype(config, embedder, target, ref.wanted)
            wanted = replace(wanted, input_type=ref.input_type)
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
