"""One run: stage, swap, verify; several stores, and what belongs to them, change all or none.

`emberd.migrate.plan` first looks for anything that would stop it halfway.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from emberd.errors import EmberdError, MigrationError
from emberd.interrupts import is_interrupt
from emberd.migrate.embedding import BATCH, Embedder, Target
from emberd.migrate.notes import JointRun, Member
from emberd.migrate.restore import roll_back
from emberd.migrate.stage import ProgressCallback, Staged, staging
from emberd.migrate.store_ref import StoreRef, require_separate_files
from emberd.migrate.swap import await_texts, bring_over, swapping
from emberd.migrate.verify import Migrated, verify
from emberd.migrate.workplace import Workplace, folder_for


class FileEdit(Protocol):
    """A file that changes together with stores; `before` is None if there was no file."""

    @property
    def file(self) -> Path: ...  # noqa: D102
    @property
    def before(self) -> bytes | None: ...  # noqa: D102
    @property
    def after(self) -> bytes: ...  # noqa: D102


class Participant(Protocol):
    """What is committed together with stores: the default, in the config file and the server."""

    @property
    def edit(self) -> FileEdit:
        """The change to a file that a process that died may have left behind."""
        ...

    def commit(self) -> None:
        """Do it, or raise with nothing changed."""
        ...

    def rollback(self) -> None:
        """Take it back; harmless if it was not done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to migrate: texts per request, and what happens to old and textless vectors."""

    batch: int = BATCH
    keep_backup: bool = True
    set_aside: bool = False


DEFAULTS = RunOptions()


def migrate_all(
    stores: Sequence[StoreRef],
    targets: Target | Mapping[str, Target],
    embedder: Embedder,
    state: Path,
    *,
    participant: Participant | None = None,
    options: RunOptions = DEFAULTS,
    progress: Callable[[StoreRef], ProgressCallback] = lambda _ref: lambda _done, _total: None,
) -> dict[str, Migrated]:
    """Migrate stores to one model together with a participant, or change nothing.

    All stores are staged first. Then all are locked and filled, the participant commits (it makes
    the model the default and reloads), and the stores are committed and verified. If any step
    fails, what was committed is taken back; if the process dies, the next run does that. An
    interrupt after everything was committed is treated the same way: the next run finishes it.

    Returns:
        The outcome for each store, by name.

    Raises:
        EmberdError: whatever failed; everything is as it was.
    """
    require_separate_files(stores)
    with ExitStack() as stack:
        staged = [
            stack.enter_context(
                staging(
                    ref,
                    targets[ref.name]
                    if isinstance(targets, Mapping)
                    else replace(targets, input_type=ref.input_type),
                    embedder,
                    state,
                    batch=options.batch,
                    set_aside=options.set_aside,
                    progress=progress(ref),
                )
            )
            for ref in stores
        ]
        joint = joint_run(stores, participant, state)
        for one in staged:
            one.joint = joint
        migrated = _Transaction(staged, participant).run()
        return {
            one.ref.name: _finished(one, migrated[one.ref.name], keep_backup=options.keep_backup)
            for one in staged
        }


class _Transaction:
    """All swaps and the participant, committed and verified, or taken back."""

    def __init__(self, staged: Sequence[Staged], participant: Participant | None) -> None:
        self._staged = staged
        self._participant = participant
        self._has_committed: Participant | None = None  # the participant, once it may have
        self._is_committed = False

    def run(self) -> dict[str, Migrated]:
        try:
            self._commit()
            for one in self._staged:
                bring_over(one)
                await_texts(one)
            migrated = {one.ref.name: verify(one) for one in self._staged}
            for one in self._staged:
                one.place.settle()
        except BaseException as error:
            # Others may already be writing, and taking it back would move their rows into a copy.
            if not (self._is_committed and is_interrupt(error)):
                _take_back([one.place for one in self._staged], self._has_committed, error)
            raise
        return migrated

    def _commit(self) -> None:
        with ExitStack() as locks:
            commits = [locks.enter_context(swapping(one)) for one in self._staged]
            if self._participant:
                self._has_committed = self._participant  # before: an interrupt may come in between
                try:
                    self._participant.commit()
                except EmberdError:
                    self._has_committed = None  # it did nothing
                    raise
            for commit_store in commits:
                commit_store()
            self._is_committed = True


def _finished(staged: Staged, migrated: Migrated, *, keep_backup: bool) -> Migrated:
    """Drop the sidecar, and the backup too unless it is to be kept."""
    staged.sidecar.close()
    staged.place.finish()
    backup = staged.place.backups()[-1]
    if keep_backup:
        return replace(migrated, backup=str(backup.path))
    staged.place.forget(backup)
    return migrated


def joint_run(stores: Sequence[StoreRef], participant: Participant | None, state: Path) -> JointRun:
    """Return what to note with each store to find the others and the participant's file."""
    members = tuple(
        Member(
            path=one.address, kind=one.store.kind, options=dict(one.options),
            folder=str(folder_for(one.store, state)),
        )
        for one in stores
    )  # fmt: skip
    if participant is None:
        return JointRun(run=uuid.uuid4().hex, stores=members)
    edit = participant.edit
    before = None if edit.before is None else edit.before.decode()
    return JointRun(
        run=uuid.uuid4().hex, stores=members,
        file=str(edit.file), before=before, after=edit.after.decode(),
    )  # fmt: skip


def _take_back(
    places: Sequence[Workplace], participant: Participant | None, because: BaseException
) -> None:
    """Undo as much as possible; raises if that was not everything, or if rows were copied.

    All are marked first, so that after a kill halfway the next run continues to undo.
    """
    failed, copies = [], []
    steps: list[Callable[[], Path | None]] = [place.mark for place in places]
    steps += [participant.rollback] if participant else []
    steps += [partial(roll_back, place) for place in places]
    for step in steps:
        try:
            copies.append(step())
        except (EmberdError, OSError) as error:
            failed.append(str(error))
    kept = ", ".join(str(copy) for copy in copies if copy)
    if kept and not failed:
        raise MigrationError(
            f"{str(because) or 'It was interrupted.'} What was written in the meantime is in"
            f" {kept}.",
            hint="Correct the cause, then write those rows again.",
        ) from because
    if failed:
        raise MigrationError(
            f"{because} Taking it back failed too: {' '.join(failed)}",
            hint="Correct that, then run `emberd migrate status` on each store to finish it.",
        ) from because
