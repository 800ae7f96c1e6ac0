"""How things look in a terminal. Receives data, gives something Rich can print."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from emberd.units import format_duration, format_size

STATE_STYLE = {"ready": "green", "starting": "yellow", "draining": "yellow", "failed": "red"}
VERDICT_STYLE = {
    "ok": "green", "failed": "red", "warning": "yellow", "note": "cyan", "skipped": "dim"
}  # fmt: skip


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
    """One row per model that is alive, or failed; why it failed stands in a column of its own."""
    rows = list(rows)
    columns = ["model", "state", "memory", "backend", "in flight", "queued", "unloads in"]
    if any(row["last_error"] for row in rows):
        columns.append("last error")
    table = _table(*columns)
    for row in rows:
        style = STATE_STYLE.get(row["state"], "dim")
        leaves_s = row["unloads_in_s"]
        leaves = "" if leaves_s is None else format_duration(round(leaves_s))
        table.add_row(
            row["name"], f"[{style}]{row['state']}[/]{_progress(row['progress'])}",
            format_size(row["memory_bytes"]), f"{row['backend']} {row['compute']}",
            str(row["in_flight"]), str(row["queued"]), leaves,
            *([escape(row["last_error"] or "")] if "last error" in columns else []),
        )  # fmt: skip
    return table


def start_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model that has been started: milliseconds of each part of its last start.

    `first vector` is there when a request waited for the start.
    """
    phases = ("spawn", "import", "files", "load", "identity", "first vector")
    table = _table("last start (ms)", *phases, "sum")
    for row in rows:
        seconds = row["phases_s"]
        if seconds:
            spent = [f"{seconds[name] * 1e3:.0f}" if name in seconds else "" for name in phases]
            table.add_row(row["name"], *spent, f"{sum(seconds.values()) * 1e3:.0f}")
    return table


def verify_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model and check."""
    table = _table("model", "check", "result", "detail")
    for row in rows:
        style = VERDICT_STYLE[row["verdict"]]
        result = f"[{style}]{row['verdict']}[/]"
        table.add_row(row["model"], row["check"], result, escape(row["detail"]))
    return table


def doctor_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per finding; what to do stands beside what is wrong."""
    table = _table("check", "result", "detail", "what to do")
    for row in rows:
        style = VERDICT_STYLE[row["verdict"]]
        advice = row["advice"] if row["verdict"] in ("failed", "warning") else ""
        table.add_row(
            row["check"], f"[{style}]{row['verdict']}[/]", escape(row["detail"]), escape(advice)
        )
    return table


def candidate_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """One row per model that a store's vectors were compared with."""
    table = _table("model", "mean cosine", "lowest", "share of 0.999", "fingerprint")
    for row in rows:
        table.add_row(
            row["model"], f"{row['mean_cosine']:.4f}", f"{row['lowest_cosine']:.4f}",
            f"{row['share']:.1%}", escape(row["error"] or row["fingerprint"] or ""),
        )  # fmt: skip
    return table


BENCH_ROWS = (
    ("cold: start of the server", "start_ms", "ms"),
    ("cold: first answer of all", "first_ever_ms", "ms"),
    ("first answer", "first_ms", "ms"),
    ("cold: first answer after an unload, median", "cold_ms", "ms"),
    ("cold: slowest of these", "cold_max_ms", "ms"),
    ("one client, one query, p50", "short_p50_ms", "ms"),
    ("one client, one query, p99", "short_p99_ms", "ms"),
    ("32 clients, one query each", "clients_requests_per_s", "/s"),
    ("32 clients, p50", "clients_p50_ms", "ms"),
    ("32 clients, p99", "clients_p99_ms", "ms"),
    ("beside a job: one query, p99", "job_query_p99_ms", "ms"),
    ("beside a job: /health, p99", "job_health_p99_ms", "ms"),
    ("the job alone", "job_alone_s", "s"),
    ("the job with others beside it", "job_beside_s", "s"),
    ("memory: idle", "idle_mib", "MiB"),
    ("memory: model loaded", "loaded_mib", "MiB"),
    ("memory: after the work", "worked_mib", "MiB"),
    ("memory: after an unload", "unloaded_mib", "MiB"),
)


def show_bench(results: Mapping[str, Any]) -> None:
    """Print what `emberd bench` measured; a number that is not there has no row."""
    numbers = results["numbers"]
    table = _table(f"{results['model'] or ''} {results['url']}".strip(), "")
    table.columns[1].justify = "right"
    for label, name, unit in BENCH_ROWS:
        if name in numbers:
            value = numbers[name]
            table.add_row(label, f"{value:.{0 if value >= 100 else 1}f} {unit}")
    show(table)
    rows = results["throughput"]
    lengths = _table(
        "words in a text", "texts/s", *(["tokens/s"] if "tokens_per_s" in rows[0] else [])
    )
    for column in lengths.columns:
        column.justify = "right"
    for row in rows:
        cells = [f"{row['words']:.0f}", f"{row['texts_per_s']:.1f}"]
        lengths.add_row(*cells, *([f"{row['tokens_per_s']:.0f}"] if "tokens_per_s" in row else []))
    show(lengths)


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
