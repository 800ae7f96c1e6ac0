"""The tables that commands print, with their columns: data in, something Rich can print out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from emberd.units import format_duration, format_size

if TYPE_CHECKING:
    from emberd.cache.database import Held
    from emberd.pool.status import ModelStatus
    from emberd.worker.wire import Progress

STATE_STYLE = {"ready": "green", "starting": "yellow", "draining": "yellow", "failed": "red"}
VERDICT_STYLE = {
    "ok": "green", "failed": "red", "warning": "yellow", "note": "cyan", "skipped": "dim"
}  # fmt: skip
GAP = 2  # blanks between two columns
LEAST = 20  # width of a column of sentences: narrower ones are hard to read


@dataclass(slots=True)
class Sheet:
    """Rows of cells in Rich's markup. No cell is ever cut.

    Args:
        columns: their headings.
        sentences: columns that are wrapped where the terminal is too narrow.
        leave: columns to leave out there, in this order.
        right: columns of numbers.
    """

    columns: Sequence[str]
    sentences: Sequence[str] = ()
    leave: Sequence[str] = ()
    right: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)

    def fitted(self, width: int | None) -> tuple[list[str], int]:
        """Return the columns that fit this width (None: any), and the width that they take."""
        needed = {
            name: max(
                Text.from_markup(cell).cell_len for cell in (name, *(row[at] for row in self.rows))
            )
            for at, name in enumerate(self.columns)
        }
        if width is None:
            return list(self.columns), _total(needed.values())
        least = {
            name: min(size, LEAST) if name in self.sentences else size
            for name, size in needed.items()
        }
        for name in self.leave:
            if _total(least.values()) <= width:
                break
            del least[name]
        widest = _total(needed[name] for name in least)
        return list(least), max(min(width, widest), _total(least.values()))

    def table(self, kept: Sequence[str]) -> Table:
        """Return these columns as a table for Rich."""
        table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0))
        for name in kept:
            table.add_column(
                name,
                justify="right" if name in self.right else "left",
                no_wrap=name not in self.sentences,
                overflow="fold",
            )
        places = [self.columns.index(name) for name in kept]
        for row in self.rows:
            table.add_row(*(row[at] for at in places))
        return table


def _total(sizes: Iterable[int]) -> int:
    return sum(size + GAP for size in sizes) - GAP


def show(sheet: Sheet) -> None:
    """Print to stdout. A terminal gets what fits and a note on the rest; a pipe gets everything."""
    console = Console()
    kept, width = sheet.fitted(console.width if console.is_terminal else None)
    if width > console.width or not console.is_terminal:
        console = Console(width=width)  # a terminal wraps such a line by itself
    console.print(sheet.table(kept))
    left = [name for name in sheet.columns if name not in kept]
    if left:
        console.print(f"[dim]A wider terminal also shows: {', '.join(left)}.[/]", soft_wrap=True)


def model_table(rows: Iterable[Mapping[str, Any]], *, with_disk: bool = False) -> Sheet:
    """One row per registry entry; `with_disk` adds the size of its files and its compiled copy."""
    sheet = Sheet(
        ("model", "dimensions", "pooling", "precision", "max tokens", "roles", "licence", "runs on",
         "tested", "files", *(("disk", "compiled") if with_disk else ()), "fingerprint"),
        leave=("licence", "roles", "pooling", "fingerprint", "max tokens", "precision",
               "dimensions", "tested", "runs on"),
        right=("disk", "compiled"),
    )  # fmt: skip
    for row in rows:
        files = "[green]here[/]" if row["pulled"] else "[dim]not here[/]"
        marks = [*(["default"] if row["default"] else [])]
        marks += [] if row["kind"] == "embed" else [row["kind"]]
        name = row["name"] + "".join(f" [cyan]({mark})[/]" for mark in marks)
        sheet.rows.append((
            name, "" if row["kind"] == "rerank" else str(row["dimensions"]), row["pooling"],
            row["precision"], str(row["max_tokens"] or "by checkpoint"), _roles(row),
            row["licence"] or "", _runs_on(row), row["tested"], files,
            *(_sizes(row) if with_disk else ()), row["fingerprint"] or "",
        ))  # fmt: skip
    return sheet


def _runs_on(row: Mapping[str, Any]) -> str:
    """Return the backends that run it here, or in one word why none does."""
    if row["why_not"] == "unknown":
        return "[dim]unknown[/]"
    return ", ".join(row["runs_on"]) or f"[red]no[/]: {row['why_not']}"


def _roles(row: Mapping[str, Any]) -> str:
    """Return what may stand after the name: `:query :document`."""
    ends = (name.removeprefix(row["name"]) for name in row["roles"])
    return " ".join(end for end in ends if end.startswith(":"))


def _sizes(row: Mapping[str, Any]) -> list[str]:
    sizes = (row["files_bytes"], row["compiled_bytes"])
    return [format_size(size) if size else "" for size in sizes]


def process_table(models: Sequence["ModelStatus"]) -> Sheet:
    """One row per model that is loaded or has failed, with a column for why it failed."""
    columns = ["model", "state", "memory", "backend", "in flight", "queued", "unloads in"]
    if any(model.last_error for model in models):
        columns.append("last error")
    sheet = Sheet(
        columns,
        sentences=("last error",),
        leave=("backend", "queued", "in flight", "unloads in", "memory"),
    )
    for model in models:
        style = STATE_STYLE.get(model.state, "dim")
        leaves_s = model.unloads_in_s
        leaves = "" if leaves_s is None else format_duration(round(leaves_s))
        times = f" x {model.replicas}" if model.replicas > 1 else ""
        sheet.rows.append((
            model.name, f"[{style}]{model.state}[/]{_progress(model.progress)}",
            format_size(model.memory_bytes), f"{model.backend} {model.compute}{times}",
            str(model.in_flight), str(model.queued), leaves,
            *([escape(model.last_error or "")] if "last error" in columns else []),
        ))  # fmt: skip
    return sheet


def start_table(models: Iterable["ModelStatus"]) -> Sheet:
    """One row per model that has been started: milliseconds of each part of its last start.

    `first vector` is present if a request was waiting for the start.
    """
    phases = ("spawn", "import", "files", "load", "identity", "first vector")
    sheet = Sheet(("last start (ms)", *phases, "sum"), leave=phases)
    for model in models:
        seconds = model.phases_s
        if seconds:
            spent = [f"{seconds[name] * 1e3:.0f}" if name in seconds else "" for name in phases]
            sheet.rows.append((model.name, *spent, f"{sum(seconds.values()) * 1e3:.0f}"))
    return sheet


def verify_table(rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """One row per model and check."""
    sheet = Sheet(("model", "check", "result", "detail"), sentences=("detail",))
    for row in rows:
        style = VERDICT_STYLE[row["verdict"]]
        result = f"[{style}]{row['verdict']}[/]"
        sheet.rows.append((row["model"], row["check"], result, escape(row["detail"])))
    return sheet


def doctor_table(rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """One row per finding."""
    sheet = Sheet(("check", "result", "detail"), sentences=("detail",))
    for row in rows:
        style = VERDICT_STYLE[row["verdict"]]
        sheet.rows.append((row["check"], f"[{style}]{row['verdict']}[/]", escape(row["detail"])))
    return sheet


def cache_table(held: Iterable["Held"]) -> Sheet:
    """One row per space of which vectors are kept."""
    columns = ("model", "fingerprint", "vectors", "found")
    sheet = Sheet(columns, leave=("fingerprint",), right=("vectors", "found"))
    for each in held:
        asked = each.hits + each.misses
        found = f"{each.hits / asked:.0%} of {asked:,}" if asked else "never asked"
        sheet.rows.append((escape(each.model), each.fingerprint, f"{each.entries:,}", found))
    return sheet


def candidate_table(rows: Iterable[Mapping[str, Any]]) -> Sheet:
    """One row per model that a store's vectors were compared with."""
    sheet = Sheet(
        ("model", "mean cosine", "lowest", "share of 0.999", "fingerprint"),
        sentences=("fingerprint",),
        leave=("lowest", "share of 0.999"),
    )
    for row in rows:
        sheet.rows.append((
            row["model"], f"{row['mean_cosine']:.4f}", f"{row['lowest_cosine']:.4f}",
            f"{row['share']:.1%}", escape(row["error"] or row["fingerprint"] or ""),
        ))  # fmt: skip
    return sheet


BENCH_ROWS = (
    ("cold: start of the server", "start_ms", "ms"),
    ("cold: very first answer", "first_ever_ms", "ms"),
    ("first answer", "first_ms", "ms"),
    ("cold: first answer after an unload, median", "cold_ms", "ms"),
    ("cold: slowest of these", "cold_max_ms", "ms"),
    ("one client, one query, p50", "short_p50_ms", "ms"),
    ("one client, one query, p99", "short_p99_ms", "ms"),
    ("32 clients, one query each", "clients_requests_per_s", "/s"),
    ("32 clients, p50", "clients_p50_ms", "ms"),
    ("32 clients, p99", "clients_p99_ms", "ms"),
    ("during a job: one query, p99", "job_query_p99_ms", "ms"),
    ("during a job: /health, p99", "job_health_p99_ms", "ms"),
    ("the job alone", "job_alone_s", "s"),
    ("the job during other requests", "job_beside_s", "s"),
    ("the job alone: cores used", "used_cores", "of {machine_cores:.0f}"),
    ("memory: idle", "idle_mib", "MiB"),
    ("memory: model loaded", "loaded_mib", "MiB"),
    ("memory: after the work", "worked_mib", "MiB"),
    ("memory: after an unload", "unloaded_mib", "MiB"),
)


def show_bench(results: Mapping[str, Any]) -> None:
    """Print what `emberd bench` measured; a number that is missing has no row."""
    numbers = results["numbers"]
    head = f"{results['model'] or ''} {results['url']}".strip()
    sheet = Sheet((head, ""), right=("",))
    for label, name, unit in BENCH_ROWS:
        if name in numbers:
            value = numbers[name]
            shown = f"{value:.{0 if value >= 100 else 1}f} {unit.format(**numbers)}"
            sheet.rows.append((label, shown))
    show(sheet)
    rows = results["throughput"]
    columns = ["words in a text", "texts/s", *(["tokens/s"] if "tokens_per_s" in rows[0] else [])]
    lengths = Sheet(columns, right=columns)
    for row in rows:
        cells = [f"{row['words']:.0f}", f"{row['texts_per_s']:.1f}"]
        if "tokens_per_s" in row:
            cells.append(f"{row['tokens_per_s']:.0f}")
        lengths.rows.append(cells)
    show(lengths)


def _progress(progress: "Progress | None") -> str:
    if not progress:
        return ""
    if not progress.total:
        return f" ({progress.phase})"
    return f" ({progress.phase} {progress.done / progress.total:.0%})"
