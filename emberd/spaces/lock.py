"""What was loaded on this machine before: `state/lock.json`, with one entry per model."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from emberd.dtypes import Dtype, has_step
from emberd.files import is_file
from emberd.hashing import FileHash
from emberd.spaces.compare import Space
from emberd.spaces.fingerprint import of_dtype
from emberd.spaces.options import SpaceOptions
from emberd.state import StateFile, known_fields

REMOVED = "removed"  # in place of `started_for`
NO_VERSION = "unknown"  # of a library of `engine` that is not installed


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEntry:
    """What is remembered about one model.

    Attributes:
        source: where its files came from, as `str(Source)`.
        folder: where they were.
        files: their hashes, by name relative to `folder`.
        fingerprint: the fingerprint of its full output size.
        fingerprints: all of them, by output size.
        equivalent: further fingerprints that probes and options showed to be the same space.
        options: the limits and options of all these.
        backend: the backend that loaded it; None if it was only pulled.
        engine: the libraries that computed, with their versions.
        compute: the arithmetic in use.
        started_for: the `load_key` of the registry's entry that it was loaded for.
        processor: the `processor_key` of the machine that it was loaded on.
        kept: what the backend keeps in the folder of its compiled model for the next load.
        stored: whether all of that was there after the load; it may be impossible to write it.
        probes: the vectors of the probe texts, encoded.
        steps: the step of its int8 vectors, by output size, once somebody has asked for such. They
            stay as long as the space does, so that what is stored still fits.
        peak_memory_bytes: of its worker process; 0 if unknown.
        changed_to: what the model gives now, if that is another space that nobody has accepted yet.
        cosine: the lowest cosine of a probe text between the two.
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
    started_for: str = ""
    processor: str = ""
    kept: tuple[str, ...] = ()
    stored: bool = True
    probes: str = ""
    steps: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0
    changed_to: "LockEntry | None" = None
    cosine: float | None = None

    @property
    def known_as(self) -> tuple[str, ...]:
        """All fingerprints of its float32 vectors: of every size, and those that are as good."""
        found = (self.fingerprint, *self.fingerprints.values(), *self.equivalent)
        return tuple(dict.fromkeys(filter(None, found)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, also if it went through JSON.

        Unknown keys, which a newer version may write, are ignored. An older version recorded only
        `max_tokens`, outside of `options`.

        Raises:
            LookupError, TypeError, AttributeError: something is missing, or has the wrong type.
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
                "kept": tuple(data.get("kept", ())),
                "changed_to": cls.from_dict(changed_to) if changed_to else None,
            }
        )
        entry._check()
        return entry

    def _check(self) -> None:
        """Raise TypeError if a value has the wrong type, as in a damaged or foreign file."""
        files, spaces, steps = self.files, self.fingerprints, self.steps
        texts: list[object] = [self.source, self.folder, self.probes, self.started_for]
        texts += [self.processor, *self.equivalent, *self.kept]
        texts += [*files, *(file.sha256 for file in files.values()), *spaces, *spaces.values()]
        stated: list[object] = [self.fingerprint, self.backend, self.engine, self.compute]
        numbers: list[object] = [self.peak_memory_bytes, self.stored]
        numbers += [n for file in files.values() for n in (file.size, file.mtime_ns, file.inode)]
        if not (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(text, str | None) for text in stated)
            and all(isinstance(number, int) and abs(number) < 2**63 for number in numbers)
            and all(type(step) is float and 0 < step < math.inf for step in steps.values())
            and isinstance(self.cosine, float if self.changed_to else float | None)
        ):
            raise TypeError("a value has the wrong type")

    def removed(self) -> "LockEntry":
        """Return it for a model that was removed though its files stay: nothing is kept for it."""
        now = self.changed_to and self.changed_to.removed()
        return replace(self, started_for=REMOVED, kept=(), changed_to=now)

    @property
    def is_removed(self) -> bool:
        """Whether it was removed, and has not been loaded since."""
        return self.started_for == REMOVED

    def with_steps(self, steps: Mapping[str, float]) -> "LockEntry":
        """Return it with these steps of its present state's int8."""
        if self.changed_to:
            return replace(self, changed_to=replace(self.changed_to, steps=steps))
        return replace(self, steps=steps)

    @property
    def now(self) -> "LockEntry":
        """The model's present state: the accepted one, or the one it changed to."""
        return self.changed_to or self

    def measured(self, name: str) -> Space:
        """Return its space by options and probes alone; `name` is what sentences call it."""
        return Space(name=name, options=self.options, probes=self.probes)

    @property
    def reasons(self) -> str:
        """Say why `changed_to` is a different space from the accepted one."""
        said = self.options.differences(self.now.options)
        if self.cosine is not None:
            said.append(f"the lowest cosine of the probe texts is {self.cosine:.3f}")
        return "; ".join(said)

    def advice(self, name: str) -> str:
        """Say what to do when the model `name` has changed."""
        limit = self.options.max_tokens
        undo = "Undo the change of files or config"
        if limit is not None and limit != self.now.options.max_tokens:
            undo = f"State `max_tokens: {limit}` in models.{name} to keep it as it was"
        accept = f"emberd verify --accept {shlex.quote(name)}"
        return f"{undo}, or re-embed what is stored and run `{accept}`."

    @property
    def files_remain(self) -> bool:
        """Whether the files that were hashed are still in their folder.

        Whether the model is here, from any source, is for `models.availability` to say.
        """
        files, folder = self.now.files, self.now.folder
        return bool(files) and all(is_file(Path(folder, name)) for name in files)

    @property
    def files_unchanged(self) -> bool:
        """Whether the files that were hashed are as they were, as far as their status shows."""
        try:
            return all(
                file.is_of(Path(self.folder, name).stat()) for name, file in self.files.items()
            )
        except (OSError, ValueError):
            return False

    def is_same_state(self, other: "LockEntry") -> bool:
        """Whether nothing differs that could move vectors, judged without running the model."""
        return (self.fingerprint, self.backend, self.engine, self.compute) == (
            other.fingerprint, other.backend, other.engine, other.compute,
        )  # fmt: skip


def space_of(
    name: str, entry: LockEntry | None, dtype: Dtype = "float", size: int | None = None
) -> Space:
    """Return what is known about the space that the model `name` gives now.

    Args:
        name: the model.
        entry: what is remembered about it.
        dtype: what its vectors are rounded to.
        size: their length; None: any that the model offers.
    """
    if entry is None:
        return Space(name=name, model=name, gap=f"{name} has never been loaded here")
    now = entry.now
    space = replace(
        now.measured(name),
        model=name,
        fingerprints=now.known_as,
        sizes=tuple(int(each) for each in now.fingerprints if each.isdecimal()),
    )
    if dtype == "float":
        return space
    steps = [step for key, step in now.steps.items() if size is None or key == str(size)]
    if not has_step(dtype):
        steps = [0.0]
    if not steps:
        gap = f"{name} has never given {dtype} vectors here"
        return Space(name=name, options=space.options, dtype=dtype, gap=gap)
    return replace(
        space,
        fingerprints=[of_dtype(each, dtype, step) for step in steps for each in space.fingerprints],
        dtype=dtype,
        step=steps[0] if has_step(dtype) and len(steps) == 1 else None,
    )


class LockFile(StateFile[LockEntry]):
    """`lock.json`. Methods that write raise OSError if the state folder cannot be written."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / "lock.json", "models", LockEntry.from_dict)

    def put(self, name: str, entry: LockEntry) -> None:
        """Replace one model's entry.

        While the space is the same, the highest peak memory stays, and the steps of int8: somebody
        may have measured them since this entry was made.
        """
        with self.changing() as entries:
            before = entries.get(name)
            if before and before.fingerprint == entry.fingerprint:
                peak = max(before.peak_memory_bytes, entry.peak_memory_bytes)
                entry = replace(entry, peak_memory_bytes=peak)
            if before and before.now.fingerprint == entry.now.fingerprint:
                entry = entry.with_steps({**entry.now.steps, **before.now.steps})
            entries[name] = entry

    def keep_steps(
        self, name: str, fingerprint: str, measured: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Remember the steps of a model's int8 and return those that count: known ones win.

        Args:
            name: the model.
            fingerprint: that of the space, in its full size, that they were measured in.
            measured: the steps, by output size.
        """
        with self.changing() as entries:
            entry = entries.get(name)
            if not entry or entry.now.fingerprint != fingerprint:
                return measured
            entries[name] = entry.with_steps({**measured, **entry.now.steps})
            return entries[name].now.steps

    def note_peak(self, name: str, peak_memory_bytes: int) -> None:
        """Record the peak memory of a run that has ended; a higher earlier peak fades.

        It falls by half the difference, and to at most twice the new peak, so that one unusual
        request does not count against the budget forever.
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
        """Accept the state that a model has changed to; return False if it has not changed."""
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
