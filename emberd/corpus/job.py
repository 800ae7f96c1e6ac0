"""The whole job, on this machine: each part that is not there yet, one after the other."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from emberd.corpus.manifest import Asked, Manifest, begin, unwritable
from emberd.corpus.parts import Counts, counts_of, write_parts
from emberd.errors import AlreadyRunningError
from emberd.flock import LockedError, locked
from emberd.migrate.embedding import Embedder, Target

PART_ROWS = 10_000  # what a stopped run has to do again at most

ProgressCallback = Callable[[int, int], None]
"""Called with the rows that are done and all rows."""


@dataclass(frozen=True, slots=True)
class Job:
    """A folder that is being filled. `done` has the counts of each part that is there."""

    folder: Path
    manifest: Manifest
    done: dict[str, Counts]

    @property
    def counts(self) -> Counts:
        """What was counted in all parts that are there."""
        return sum(self.done.values(), Counts())


@contextmanager
def opened(
    folder: Path,
    paths: Sequence[Path],
    target: Target,
    *,
    text: str,
    column: str,
    part_rows: int = PART_ROWS,
) -> Iterator[Job]:
    """Begin a job, or go on with one that was stopped; nobody else can meanwhile.

    Args:
        folder: where the parts go; it is made if it does not exist.
        paths: files of Parquet, JSONL, CSV or text.
        target: the space of the vectors.
        text: the column of the inputs that has the texts.
        column: the column of the parts that has the vectors.
        part_rows: rows in a part.

    Raises:
        AlreadyRunningError: another process fills this folder.
        BadOptionError: an input is bad or has changed, or the folder is of another job.
        StoreError: the folder cannot be written.
    """
    asked = Asked(text, column, target.input_type)
    stamp = target.stamp(uuid.uuid4().hex)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from None
    with _alone(folder):
        for left in folder.glob(".*.part"):  # by a run that was killed
            with suppress(OSError):
                left.unlink()
        manifest = begin(folder, paths, asked, stamp, part_rows)
        found = {part.name: counts_of(folder, manifest, part) for part in manifest.parts}
        yield Job(folder, manifest, {name: each for name, each in found.items() if each})


def run(job: Job, embedder: Embedder, target: Target, progress: ProgressCallback) -> None:
    """Write every part that is not there; raises as `write_parts`."""
    total = job.manifest.rows
    done = job.counts.rows
    progress(done, total)

    def report(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    missing = [part for part in job.manifest.parts if part.name not in job.done]
    written = write_parts(job.folder, job.manifest, missing, embedder, target, report=report)
    for name, counts in written:
        job.done[name] = counts


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / ".lock", 0, leave=False))
        except LockedError as error:
            raise AlreadyRunningError(
                f"{folder} is being filled by {error.holder}.", hint="Wait until it has ended."
            ) from None
        except OSError as error:
            raise unwritable(folder, error) from None
        yield
