"""A changed file is noticed, however an editor changes it."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import watchfiles.main
from watchfiles._rust_notify import RustNotify

from emberd.config import watch
from emberd.config.watch import Snapshot, changes
from tests.serving import wait_for

Change = Callable[[Path], object]
Watched = list[set[Path]]


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Which folders have been watched, the present ones last. Changes are reported quickly."""
    noted: Watched = []

    def notify(folders: Iterable[str], *options: Any) -> RustNotify:  # noqa: ANN401 - passed on
        made = RustNotify([*folders], *options)
        noted.append({Path(folder) for folder in folders})
        return made

    monkeypatch.setattr(watchfiles.main, "RustNotify", notify)
    monkeypatch.setattr(watch, "STEP_MS", 20)
    return noted


def in_place(file: Path) -> None:
    with file.open("r+") as opened:
        opened.write("2")


def renamed_over(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("2")
    other.replace(file)


def moved_away_and_written(file: Path) -> None:
    file.rename(file.with_name("backup~"))
    file.write_text("2")


def deleted_and_made(file: Path) -> None:
    file.unlink()
    file.write_text("2")


def deleted(file: Path) -> None:
    file.unlink()


def folder_moved_away(file: Path) -> None:
    file.parent.rename(file.parent.with_name("old"))


def linked_elsewhere(file: Path) -> None:
    (file.parent.parent / "elsewhere").write_text("2")
    link = file.with_name("link")
    link.symlink_to("../elsewhere")
    link.replace(file)


def mode_changed(file: Path) -> None:
    file.chmod(0o640)


EVERY_WAY = [
    in_place, renamed_over, moved_away_and_written, deleted_and_made, deleted,
    folder_moved_away, linked_elsewhere, mode_changed,
]  # fmt: skip


async def until_watched(watched: Watched, folders: frozenset[Path]) -> None:
    """Return once these folders are watched; a change that comes sooner takes 5 s to be seen."""
    await asyncio.to_thread(wait_for, lambda: watched[-1:] == [folders])


async def seen_after(watched: Watched, file: Path, *steps: Change) -> list[Snapshot]:
    """Take one step after the other; return how the file looked at each reported change."""
    found: list[Snapshot] = []
    async with aclosing(changes(file, Snapshot.of(file))) as told:
        for step in steps:
            waiting = asyncio.ensure_future(anext(told))
            await until_watched(watched, Snapshot.of(file).folders)
            await asyncio.to_thread(step, file)
            await asyncio.wait_for(waiting, 20)
            found.append(Snapshot.of(file))
    return found


@pytest.mark.parametrize("change", EVERY_WAY)
def test_a_change_is_seen(tmp_path: Path, watched: Watched, change: Change) -> None:
    file = tmp_path / "emberd" / "config.yaml"
    file.parent.mkdir()
    file.write_text("1")
    before = Snapshot.of(file)

    (after,) = asyncio.run(seen_after(watched, file, change))

    assert after != before


def test_a_linked_file_is_watched_where_it_is(tmp_path: Path, watched: Watched) -> None:
    dotfiles = tmp_path / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "emberd.yaml").write_text("1")
    file = tmp_path / "emberd" / "config.yaml"
    file.parent.mkdir()
    file.symlink_to("../dotfiles/emberd.yaml")

    def edit(_: Path) -> None:
        renamed_over(dotfiles / "emberd.yaml")

    assert Snapshot.of(file).folders == {file.parent, dotfiles}
    assert len(asyncio.run(seen_after(watched, file, edit))) == 1


def test_a_folder_that_is_a_link_may_be_swapped(tmp_path: Path, watched: Watched) -> None:
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.yaml").write_text(version)
    (tmp_path / "current").symlink_to("one")
    file = tmp_path / "current" / "config.yaml"

    def swap(_: Path) -> None:
        (tmp_path / "next").symlink_to("two")
        (tmp_path / "next").replace(tmp_path / "current")

    assert len(asyncio.run(seen_after(watched, file, swap))) == 1


def test_a_folder_that_appears_later_is_watched_then(tmp_path: Path, watched: Watched) -> None:
    file = tmp_path / "a" / "b" / "config.yaml"
    steps: list[Change] = [
        lambda file: file.parent.parent.mkdir(),
        lambda file: file.parent.mkdir(),
        lambda file: file.write_text("1"),
        renamed_over,
    ]

    seen = asyncio.run(seen_after(watched, file, *steps))

    assert [sight.status is None for sight in seen] == [True, True, False, False]


def test_a_link_that_leads_in_circles_is_no_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.symlink_to("config.yaml")

    assert Snapshot.of(file) == Snapshot(frozenset({tmp_path}), None)


def test_what_happens_beside_the_file_is_no_change(tmp_path: Path, watched: Watched) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("1")

    async def beside() -> None:
        async with aclosing(changes(file, Snapshot.of(file))) as told:
            waiting = asyncio.ensure_future(anext(told))
            await until_watched(watched, Snapshot.of(file).folders)
            for number in range(5):
                await asyncio.sleep(0.04)
                (tmp_path / f"other{number}").write_text("1")
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await asyncio.to_thread(in_place, file)
            await asyncio.wait_for(waiting, 20)

    asyncio.run(beside())
