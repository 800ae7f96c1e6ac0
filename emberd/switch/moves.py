"""The stores that follow the default, planned and embedded again together with the switch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from emberd.config.load import Config
from emberd.migrate import embedding, known, run
from emberd.migrate.embedding import Embedder, Target
from emberd.migrate.run import Moved, Named, Plan, Report
from emberd.switch.switch import Switch


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """`pending` are the stores to embed again; `there` hold the target's vectors already."""

    target: Target
    embedder: Embedder
    state: Path
    pending: Sequence[tuple[Named, Plan]]
    there: Sequence[tuple[Named, Plan]]

    def run(self, switch: Switch, report: Callable[[Named], Report]) -> dict[str, Moved]:
        """Move the pending stores and commit the switch, or do none of it.

        Returns:
            What came of each store, by name.

        Raises:
            EmberdError: something failed; everything is as it was.
        """
        stores = [named for named, _ in self.pending]
        return run.migrate_all(
            stores, self.target, self.embedder, self.state, along=switch, report=report
        )


def open_followers(config: Config) -> list[Named]:
    """Open the configured stores that follow the default.

    Raises:
        StoreError: one cannot be opened, or two of them lie in one file.
    """
    stores = known.served_by_default(config)
    run.require_apart(stores)
    return stores


def plan_moves(
    config: Config, stores: Sequence[Named], embedder: Embedder, name: str, *, dry_run: bool
) -> Moves:
    """Plan to embed every store again with the model `name`.

    Unless it is a dry run, rows whose text came late, in stores that need no move, get their
    vectors now.

    Raises:
        StoreError: a store cannot be read; it is named.
    """
    state = config.homes.state
    target = embedding.find_target(config, embedder, name)
    plans: list[tuple[Named, Plan]] = []
    for named in stores:
        with known.naming(named.name):
            wanted = replace(target, input_type=named.input_type)
            if not dry_run:
                run.complete(named, wanted, embedder, state)
            plans.append((named, run.plan(named, wanted, embedder, state)))
    return Moves(
        target=target,
        embedder=embedder,
        state=state,
        pending=[(named, plan) for named, plan in plans if not plan.there],
        there=[(named, plan) for named, plan in plans if plan.there],
    )
