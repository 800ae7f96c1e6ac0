"""What a start reveals about a model, and that nothing depends on its being written."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from emberd.pool.record import LockRecord, differences
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry, LockFile
from emberd.worker import wire
from tests.event_loop import in_event_loop

SPEC = ModelSpec(name="one", sources=(Source(path="/none"),), dimensions=8, pooling="mean")
ENTRY = LockEntry(source="path:/none", folder="/none", fingerprint="space")


def ready(entry: LockEntry = ENTRY, *found: dict[str, str]) -> wire.Ready:
    return wire.Ready(
        backend="fake", compute="f32", max_tokens=64, fingerprints={"8": "space"}, equivalent=[],
        lock=asdict(entry), phases_s={}, differences=list(found),
    )  # fmt: skip


@in_event_loop
async def test_an_entry_is_written_with_the_peak_that_was_measured(tmp_path: Path) -> None:
    record = LockRecord("one", LockFile(tmp_path))
    assert (record.read(), record.peak_bytes()) == (None, 0)
    record.put(ready(), peak_bytes=100)
    await record.written()
    await record.note_peak(150)

    entry = record.read()
    assert entry
    assert (entry.source, entry.fingerprint, record.peak_bytes()) == (
        "path:/none", "space", 150,
    )  # fmt: skip


def test_a_folder_that_cannot_be_written_is_logged_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file, not a folder")

    async def story() -> None:
        record = LockRecord("one", LockFile(tmp_path / "state"))
        record.put(ready(), peak_bytes=100)
        await record.written()
        await record.note_peak(150)

    asyncio.run(story())
    assert len([line for line in caplog.messages if "lock.json" in line]) == 2


def test_a_model_that_changed_its_space_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = LockEntry(
        source="path:/none", folder="/none", fingerprint="space", cosine=0.5,
        changed_to=LockEntry(source="path:/none", folder="/none", fingerprint="another"),
    )  # fmt: skip

    async def story() -> None:
        record = LockRecord("one", LockFile(tmp_path))
        record.put(ready(changed), peak_bytes=100)
        await record.written()

    asyncio.run(story())
    assert any("another" in line for line in caplog.messages)


def test_what_the_folder_says_otherwise_is_told_of_entries_that_a_user_wrote() -> None:
    found = {"key": "pooling", "message": "The folder says cls.", "line": "pooling: cls"}

    (note,) = differences(SPEC, ready(ENTRY, found))

    assert "The folder says cls." in note
    assert "models.one" in note
