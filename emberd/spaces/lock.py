"""What was loaded on this machine before: `state/lock.json`, one entry per model."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from emberd.files import is_file
from emberd.hashing import FileHash
from emberd.spaces.compare import Space
from emberd.spaces.options import SpaceOptions
from emberd.state import StateFile, known_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What is remembered of one model.

    `fingerprints` are by output size, `equivalent` further ones that probes and options showed to
    be the same space; `options` are the limits and options of them all. `engine` names the
    libraries that computed and their versions. `probes` holds the vectors of the probe texts as
    base64 float32. `peak_memory_bytes` is of its worker process; 0: unknown. `changed_to` is what
    the model gives now, when that is another space which nobody accepted yet, and `cosine` how near
    the two are at worst.
    """

    source: str
    folder: str
    files: Mapping[str, FileHash] = field(default_factory=dict)
    fingerprint: str | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    equivalent: tuple[str, ...] = ()
    options: SpaceOptions = SpaceOptions()  # noqa: RUF009 - it is frozen
    backend: str | None = None
    engine: str | None = None
    compute: str | None = None
    probes: str = ""
    peak_memory_bytes: int = 0
    changed_to: "LockEntry | None" = None
    cosine: float | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make it again from `dataclasses.asdict`, also by way of JSON.

        Keys that a newer version added are passed over; `max_tokens` beside `options` is what an
        older one recorded of them.

        Raises:
            LookupError, TypeError, AttributeError: something is missing, or is of another type.
        """
        changed_to = data.get("changed_to")
        options = data.get("options") or {"max_tokens": data.get("max_tokens")}
        entry = cls(
            **{
                **known_fields(cls, data),
                "files": {
                    name: FileHash(**known_fields(FileHash, file))
                    for name, file in data["files"].items()
                },
                "options": SpaceOptions.from_dict(options),
                "equivalent": tuple(data.get("equivalent", ())),
                "changed_to": cls.from_dict(changed_to) if changed_to else None,
            }
        )
        entry._check()
        return entry

    def _check(self) -> None:
        """Raise TypeError where a damaged or foreign file had something else."""
        files, spaces = self.files, self.fingerprints
        texts: list[object] = [self.source, self.folder, self.probes, *self.equivalent]
        texts += [*files, *(file.sha256 for file in files.values()), *spaces, *spaces.values()]
        stated: list[object] = [self.fingerprint, self.backend, self.engine, self.compute]
        numbers: list[object] = [self.peak_memory_bytes]
        numbers += [n for file in files.values() for n in (file.size, file.mtime_ns, file.inode)]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(text, str | None) for text in stated)
            and all(isinstance(number, int) and abs(number) < 2**63 for number in numbers)
            and isinstance(self.cosine, float if self.changed_to else float | None)
        ):
            raise TypeError("something in it is of another type")

    @property
    def now(self) -> "LockEntry":
        """What the model is at present: the accepted state, or the one it changed to."""
        return self.changed_to or self

    def measured(self, name: str) -> Space:
        """Return its space by options and probes alone, under the name that sentences use."""
        return Space(name=name, options=self.options, probes=self.probes)

    @property
    def reasons(self) -> str:
        """Say what makes `changed_to` another space than what was accepted."""
        said = self.options.differences(self.now.options)
        if self.cosine is not None:
            said.append(f"the lowest cosine of the probe texts is {self.cosine:.3f}")
        return "; ".join(said)

    def advice(self, name: str) -> str:
        """Say what to do about `changed_to` of the model `name`."""
        limit = self.options.max_tokens
        undo = "Undo the change of files or config"
        if limit is not None and limit != self.now.options.max_tokens:
            undo = f"State `max_tokens: {limit}` in models.{name} to keep it as it was"
        accept = f"emberd verify --accept {shlex.quote(name)}"
        return f"{undo}, or re-embed what is stored and run `{accept}`."

    @property
    def is_here(self) -> bool:
        """Whether its files still lie where they were."""
        files, folder = self.now.files, self.now.folder
        return bool(files) and all(is_file(Path(folder, name)) for name in files)

    def is_same_state(self, other: "LockEntry") -> bool:
        """Whether nothing that could move vectors differs, as far as is known without running."""
        return (self.fingerprint, self.backend, self.engine, self.compute) == (
            other.fingerprint, other.backend, other.engine, other.compute,
        )  # fmt: skip


def space_of(name: str, entry: LockEntry | None) -> Space:
    """Return what is known of the space that the model `name` gives at present."""
    if entry is None:
        return Space(name=name, model=name, gap=f"{name} was never loaded here")
    now = entry.now
    known_as = (now.fingerprint, *now.fingerprints.values(), *now.equivalent)
    return replace(
        now.measured(name),
        model=name,
        fingerprints=tuple(dict.fromkeys(filter(None, known_as))),
        sizes=tuple(int(size) for size in now.fingerprints if size.isdecimal()),
    )


class LockFile(StateFile[LockEntry]):
    """`lock.json`. What writes raises OSError where the state folder cannot be written."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / "lock.json", "models", LockEntry.from_dict)

    def put(self, name: str, entry: LockEntry) -> None:
        """Replace one model's entry; the highest peak memory stays while the space is the same."""
        with self.changing() as entries:
            before = entries.get(name)
            if before and before.fingerprint == entry.fingerprint:
                peak = max(before.peak_memory_bytes, entry.peak_memory_bytes)
                entry = replace(entry, peak_memory_bytes=peak)
            entries[name] = entry

    def note_peak(self, name: str, peak_memory_bytes: int) -> None:
        """Take the peak memory of a run that has ended; a higher one from before fades.

        By half of what it is more, and to the double at most: what an odd request took once must
        not count against a budget for ever.
        """
        with self.changing() as entries:
            before = entries.get(name)
            if before and peak_memory_bytes and before.peak_memory_bytes != peak_memory_bytes:
                faded = min(
                    (before.peak_memory_bytes + peak_memory_bytes) // 2, 2 * peak_memory_bytes
                )
                kept = max(peak_memory_bytes, faded)
                entries[name] = replace(before, peak_memory_bytes=kept)

    def accept(self, name: str) -> bool:
        """Make what a model changed to its accepted state; False when it has not changed."""
        with self.changing() as entries:
            entry = entries.get(name)
            if not entry or not entry.changed_to:
                return False
            entries[name] = replace(
                entry.changed_to, peak_memory_bytes=entry.peak_memory_bytes, cosine=None
            )
            return True

    def remove(self, name: str) -> None:
        """Forget a model."""
        with self.changing() as entries:
            entries.pop(name, None)
