"""How far a command is: bars and dim words on a terminal, or with `--progress` lines of JSON.

A line on stderr is `{"progress": {"what", "done", "total", "unit"}}`, of which only `what` is never
null, or `{"check": {...}}` with a row of `emberd verify --json`.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

if TYPE_CHECKING:
    from emberd.migrate.stage import ProgressCallback
    from emberd.models.hub import OnProgress

AsLines = Annotated[
    bool,
    typer.Option("--progress", help="With --json: say each step in a line of JSON on stderr."),
]
Form = Literal["bars", "lines", "nothing"]


class Named(Protocol):
    """A store or a folder, whose rows are counted."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...


EVERY_S = 0.2  # between two lines about the same step


def form_of(*, as_json: bool, as_lines: bool = False) -> Form:
    """Return how a command shows how far it is, by its options."""
    if as_lines and not as_json:
        raise typer.BadParameter("--progress is for programs, and needs --json.")
    if as_lines:
        return "lines"
    return "nothing" if as_json else "bars"


def say_steps(form: Form) -> Callable[[str], None]:
    """Return what shows in words what is being done now."""
    if form == "lines":
        return _say_progress
    shown = form == "bars" and sys.stderr.isatty()
    return lambda what: typer.secho(f"{what} ...", dim=True, err=True) if shown else None


def say_check(row: Mapping[str, Any], form: Form) -> None:
    """Show a row of `emberd verify` as soon as there is one; people get a table of all."""
    if form == "lines":
        _say_line({"check": row})


@contextmanager
def count_bytes(name: str, form: Form) -> "Iterator[OnProgress]":
    """Show the download of a model: how much, how fast, how long to go."""
    if form == "lines":
        yield _counting(f"downloading {name}", "bytes")
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    hidden = form == "nothing" or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bars:
        bar = bars.add_task(name, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


@contextmanager
def count_rows(form: Form) -> "Iterator[Callable[[Named], ProgressCallback]]":
    """Show for each store or folder how many rows are embedded, how fast, how long to go."""
    if form == "lines":
        yield lambda ref: _counting(f"embedding {ref.name}", "rows")
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
    )  # fmt: skip
    hidden = form == "nothing" or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as bars:

        def of(ref: Named) -> "ProgressCallback":
            bar = bars.add_task(ref.name, total=None, rate="")

            def report(done: int, total: int) -> None:
                speed = bars.tasks[bar].speed
                rate = f"{speed:.0f} rows/s" if speed else ""
                bars.update(bar, completed=done, total=total, rate=rate)

            return report

        yield of


def _counting(what: str, unit: str) -> Callable[[int, int], None]:
    """Return what says how much is done; never more often than anyone can look, but the end."""
    said_s = -EVERY_S

    def report(done: int, total: int) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if done >= total or now_s - said_s >= EVERY_S:
            said_s = now_s
            _say_progress(what, done, total, unit)

    return report


def _say_progress(
    what: str, done: int | None = None, total: int | None = None, unit: str | None = None
) -> None:
    _say_line({"progress": {"what": what, "done": done, "total": total, "unit": unit}})


def _say_line(row: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(row), err=True)
