"""What `emberd compare` prints: a table of the models, what it means, and examples."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import typer
from rich.markup import escape

from emberd.cli.context import print_warning
from emberd.cli.render import Sheet, show
from emberd.units import format_duration, format_plain, format_size

Row = Mapping[str, Any]
TEXT = 88  # characters of a text in an example
BUSY = 0.5  # processes for each core, before anything was measured


def show_comparison(row: Row, source: Path) -> None:
    """Print a comparison; `row` is what `--json` prints."""
    typer.echo(_sentence_about_texts(row, source.name))
    typer.echo()
    show(_table(row))
    typer.echo()
    for paragraph in (*_meaning(row), *_about_reranking(row)):
        typer.echo(paragraph)
    for line in _examples(row):
        typer.echo(line)
    _warn(row)


def _sentence_about_texts(row: Row, name: str) -> str:
    texts, queries = row["texts"], row["queries"]
    of = f"{texts['used']:,} of {texts['total']:,}" if texts["used"] < texts["total"] else "all"
    equal = f" ({texts['equal']:,} are equal to another one)" if texts["equal"] else ""
    said = f"{name}: {of} texts{equal}" if of != "all" else f"{name}: all {texts['total']:,} texts"
    if not queries["used"]:
        return f"{said}."
    some = f"{queries['used']:,}"
    if queries["given"]:
        whole = "" if queries["used"] == queries["total"] else f" of {queries['total']:,}"
        return f"{said}, searched with {some}{whole} queries."
    which = "each" if queries["used"] == texts["used"] else some
    return f"{said}, {which} searched for among the others."


def _table(row: Row) -> Sheet:
    models: Sequence[Row] = row["models"]
    sheet = Sheet(("", *(escape(each["model"]) for each in models)))
    sheet.right = sheet.columns[1:]
    total = f"{row['texts']['total']:,}"
    if not row["few"] and row["against"]:
        kept = [f"{each['kept']:.1f} of {row['nearest']}" for each in row["against"]]
        sheet.rows.append(("kept at 10", "[dim]-[/]", *kept))
    lines: list[tuple[str, Callable[[Row], str]]] = [
        ("texts/s", lambda each: _number(each["texts_per_s"])),
        (
            "one query" if row["queries"]["given"] else "one text alone",
            lambda each: f"{each['query_ms']:.1f} ms",
        ),
        ("memory, loaded", lambda each: format_size(each["memory_bytes"])),
        ("weights on disk", lambda each: format_size(each["weights_bytes"])),
        ("compiled, on disk", lambda each: format_size(each["compiled_bytes"])),
        ("dimensions", lambda each: str(each["dimensions"])),
        (f"vectors of {total} texts", lambda each: format_size(each["vectors_bytes"])),
        ("time to migrate" if row["source"] == "store" else "time to embed these", _takes),
        ("texts cut", lambda each: f"{each['cut']:.1%}"),
    ]
    if models[0]["score"]:
        lines.append(("nDCG@10", lambda each: f"{each['score']['ndcg']:.3f}"))
        lines.append(("recall@10", lambda each: f"{each['score']['recall']:.3f}"))
    for label, of in lines:
        sheet.rows.append((label, *(of(each) for each in models)))
    return sheet


def _takes(each: Row) -> str:
    taken = format_duration(max(1, round(each["embed_s"])))
    return "none" if each["is_stored"] else taken


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _meaning(row: Row) -> Iterator[str]:
    """Say what the figures mean, and what they do not."""
    stored = [each["model"] for each in row["models"] if each["is_stored"]]
    for name in stored:
        yield f"The store's vectors are those of {name}, and were used."
    if row["few"]:
        yield (
            f"With {row['texts']['used']} texts, the ten nearest are most of them, whatever the"
            " model: what it finds can be compared with 20 or more."
        )
        return
    if row["against"]:
        first = row["models"][0]["model"]
        yield (
            f"Kept at 10: of the ten nearest texts that {first} finds, how many the other model"
            f" finds too, on average (by chance: {row['by_chance']:.1f}). It says how much would"
            " change, not what is better."
        )
    if row["models"][0]["score"]:
        yield (
            f"nDCG and recall say how well the {row['queries']['used']} judged queries are"
            " answered; a text that nobody judged counts as not relevant."
        )
    else:
        yield (
            "Which model is better, only known answers tell: give --queries, and with --relevant"
            " which texts answer them."
        )


def _about_reranking(row: Row) -> Iterator[str]:
    found = row["rerank"]
    if not found:
        return
    yield ""
    yield (
        f"{found['model']} sorted the nearest {found['candidates']} of {found['of']} again, for"
        f" {found['queries']} queries: {found['query_ms']:.0f} ms for each, and"
        f" {format_size(found['memory_bytes'])} of memory. Of its first ten,"
        f" {found['kept']:.1f} were among the first ten before; {found['first_kept']:.0%} of the"
        f" first texts stayed first (Kendall's tau of the two orders: {found['tau']:.2f})."
    )
    if found["before"]:
        before, after = found["before"], found["after"]
        yield (
            f"On these queries, nDCG@10 went from {before['ndcg']:.3f} to {after['ndcg']:.3f}, and"
            f" recall@10 from {before['recall']:.3f} to {after['recall']:.3f}."
        )
    elif not row["queries"]["given"]:
        yield "A re-ranker is made for questions: with --queries, this says more."
    if found["too_long"]:
        yield f"{found['too_long']} queries were too long for it, and were left out."


def _examples(row: Row) -> Iterator[str]:
    for each in row["against"]:
        first, other = row["models"][0]["model"], each["model"]
        if each.get("examples"):
            yield f"\nWhere {other} differs most from {first}:"
        for example in each.get("examples", ()):
            yield f"\n  {_short(example['query'])}"
            for name, texts in (
                (first, example["only_first"]), (other, example["only_other"])
            ):  # fmt: skip
                yield f"    only {name} finds:"
                yield from (f"      {_short(text)}" for text in texts)
    found = row["rerank"]
    if found and found.get("examples"):
        yield f"\nWhat {found['model']} puts first:"
        for example in found["examples"]:
            yield f"\n  {_short(example['query'])}"
            yield f"    before: {_short(example['first_before'])}"
            yield f"    now:    {_short(example['first_after'])}"


def _short(text: str) -> str:
    """Return a text on one line, and its end left out if it is long."""
    return shorten(format_plain(" ".join(text.split())), TEXT, placeholder=" ...") or "..."


def _warn(row: Row) -> None:
    if row["load_per_core"] > BUSY:
        print_warning(
            f"This machine was busy with other work ({row['load_per_core']:.1f} processes for each"
            " core), so the speeds are lower than they could be."
        )
    if row["judged_but_missing"]:
        print_warning(
            f"Judged texts that are not among the texts: {row['judged_but_missing']}. If they are"
            " relevant, they count as not found."
        )
