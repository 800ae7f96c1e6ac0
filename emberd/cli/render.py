"""How things look in a terminal. Receives data, gives something Rich can print."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emberd.units import format_duration, format_size

STATE_STYLE = {"ready": "green", "starting": "yellow", "draining": "yellow", "failed": "red"}
VERDICT_STYLE = {"ok": "green", "failed": "red", "warning": "yellow", "skipped": "dim"}


def show(table: Table) -> None:
    """Print to stdout; a pipe gets the whole width."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def model_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per registry entry."""
    table = _table(
        "model", "dimensions", "pooling", "precision", "max tokens", "licence", "tested", "files",
        "fingerprint",
    )  # fmt: skip
    for row in rows:
        files = "[green]here[/]" if row["pulled"] else "[dim]not here[/]"
        name = row["name"] + (" [cyan](default)[/]" if row["default"] else "")
        table.add_row(
            name, str(row["dimensions"]), row["pooling"], row["precision"],
            str(row["max_tokens"] or "by checkpoint"), row["licence"] or "", row["tested"], files,
            row["fingerprint"] or "",
        )  # fmt: skip
    return table


def process_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model that is alive, or failed."""
    table = _table("model", "state", "memory", "backend", "in flight", "queued", "unloads in")
    for row in rows:
        style = STATE_STYLE.get(row["state"], "dim")
        leaves_s = row["unloads_in_s"]
        if row["last_error"]:
            note = escape(row["last_error"])
        else:
            note = "" if leaves_s is None else format_duration(round(leaves_s))
        table.add_row(
            row["name"], f"[{style}]{row['state']}[/]{_progress(row['progress'])}",
            format_size(row["memory_bytes"]), f"{row['backend']} {row['compute']}",
            str(row["in_flight"]), str(row["queued"]), note,
        )  # fmt: skip
    return table


def verify_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model and check."""
    table = _table("model", "check", "result", "detail")
    for row in rows:
        style = VERDICT_STYLE[row["verdict"]]
        result = f"[{style}]{row['verdict']}[/]"
        table.add_row(row["model"], row["check"], result, escape(row["detail"]))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _progress(progress: Mapping[str, Any] | None) -> str:
    if not progress:
        return ""
    if not progress["total"]:
        return f" ({progress['phase']})"
    return f" ({progress['phase']} {progress['done'] / progress['total']:.0%})"
