"""The figures of a comparison as an SVG file for a page: narrow, light and dark, no texts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from emberd.units import format_size

Row = Mapping[str, Any]

WIDTH, LEFT, RIGHT = 390, 16, 374
BARS_AT, BARS_WIDE = 128, 168
LINE = 20
PLOT_HIGH = 72
LONGEST_NAME = 16  # characters that fit in front of a bar

# The colours of docs/plots; the second of each pair is for a dark page.
STYLE = """
:root { color-scheme: light dark; }
.page { fill: #ffffff; } .ink { fill: #1f2328; } .dim { fill: #656d76; }
.first { fill: #8a8f98; } .other { fill: #d9541e; } .axis { stroke: #d0d7de; }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117; } .ink { fill: #e6edf3; } .dim { fill: #9198a1; }
  .first { fill: #7d858f; } .other { fill: #f0763f; } .axis { stroke: #3d444d; }
}
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
.head { font-size: 15px; font-weight: 600; } .small { font-size: 12px; }
.mid { text-anchor: middle; }
"""


class _Sheet:
    """Elements one below the other; `y` is where the next begins."""

    def __init__(self) -> None:
        self.y = 12.0
        self._drawn: list[str] = []

    def text(self, x: float, y: float, said: str, look: str = "ink") -> None:
        self._drawn.append(f'<text x="{x:g}" y="{y:g}" class="{look}">{escape(said)}</text>')

    def bar(self, x: float, y: float, size: tuple[float, float], look: str) -> None:
        wide, high = (round(max(each, 0.0), 2) for each in size)
        self._drawn.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" class="{look}"/>'
        )

    def line(self, y: float) -> None:
        self._drawn.append(f'<path d="M{LEFT} {y:g}H{RIGHT}" class="axis"/>')

    def finish(self, title: str) -> str:
        high = round(self.y + 6)
        return "\n".join((
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{high}"'
            f' viewBox="0 0 {WIDTH} {high}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{high}" class="page"/>',
            *self._drawn,
            "</svg>\n",
        ))  # fmt: skip


def draw(row: Row) -> str:
    """Return the picture of a comparison; `row` is what `comparison.to_dict` returns."""
    sheet, models = _Sheet(), row["models"]
    names = [each["model"] for each in models]
    title = f"{names[0]} and {', '.join(names[1:])}" if names[1:] else names[0]
    sheet.y += LINE
    sheet.text(LEFT, sheet.y, _cut(title, 44), "ink head")
    sheet.y += LINE
    sheet.text(LEFT, sheet.y, f"measured on {row['texts']['used']:,} texts", "dim small")
    for each in row["against"]:
        _counts(sheet, each, row["nearest"], names[0])
    for label, better, shown, value in _bars(row):
        _group(sheet, f"{label} ({better} is better)", models, (shown, value))
    if row["rerank"]:
        _reranked(sheet, row["rerank"])
    return sheet.finish(title)


def _bars(row: Row) -> Iterator[tuple[str, str, Callable[[float], str], Callable[[Row], float]]]:
    """Yield what is drawn as bars: its name, which is better, how to write it, and its value."""
    if row["models"][0]["score"]:
        yield "nDCG@10", "more", "{:.3f}".format, lambda each: each["score"]["ndcg"]
    yield "texts per second", "more", _number, lambda each: each["texts_per_s"]
    alone = "one query, in ms" if row["queries"]["given"] else "one text alone, in ms"
    yield alone, "less", "{:.1f}".format, lambda each: each["query_ms"]
    yield "memory, loaded", "less", format_size, lambda each: each["memory_bytes"]
    vectors = f"vectors of {row['texts']['total']:,} texts"
    yield vectors, "less", format_size, lambda each: each["vectors_bytes"]


def _group(
    sheet: _Sheet,
    label: str,
    models: Sequence[Row],
    how: tuple[Callable[[float], str], Callable[[Row], float]],
) -> None:
    """Draw a bar for each model; the longest one fills the width."""
    shown, value = how
    longest = max(map(value, models)) or 1.0
    sheet.y += 1.6 * LINE
    sheet.text(LEFT, sheet.y, label, "dim small")
    for place, each in enumerate(models):
        sheet.y += LINE
        sheet.text(LEFT, sheet.y, _cut(each["model"], LONGEST_NAME))
        wide = BARS_WIDE * value(each) / longest
        look = "other" if place else "first"
        sheet.bar(BARS_AT, sheet.y - 11, (wide, 13), look)
        sheet.text(BARS_AT + wide + 6, sheet.y, shown(value(each)), "ink small")


def _counts(sheet: _Sheet, each: Row, nearest: int, first: str) -> None:
    """Draw how many queries keep 0, 1, ... of their nearest texts."""
    sheet.y += 1.8 * LINE
    sheet.text(LEFT, sheet.y, f"{each['kept']:.1f} of the {nearest} nearest texts kept", "ink head")
    sheet.y += LINE
    said = f"by {_cut(each['model'], 26)}, of those of {_cut(first, 26)}"
    sheet.text(LEFT, sheet.y, said, "dim small")
    counts: Sequence[int] = each["counts"]
    most, step = max(counts) or 1, (RIGHT - LEFT) / len(counts)
    bottom = sheet.y + 1.4 * LINE + PLOT_HIGH
    for kept, count in enumerate(counts):
        x, high = LEFT + kept * step, PLOT_HIGH * count / most
        sheet.bar(x + 3, bottom - high, (step - 6, high), "other")
        middle = x + step / 2
        share = count / sum(counts)
        if share >= 0.005:
            sheet.text(middle, bottom - high - 4, f"{share:.0%}", "dim small mid")
        sheet.text(middle, bottom + 15, str(kept), "dim small mid")
    sheet.line(bottom)
    sheet.y = bottom + 32
    sheet.text(LEFT, sheet.y, "how many are kept, and for which share of queries", "dim small")


def _reranked(sheet: _Sheet, found: Row) -> None:
    sheet.y += 1.8 * LINE
    sheet.text(LEFT, sheet.y, _cut(f"sorted again by {found['model']}", 44), "ink head")
    for said in (
        f"{found['query_ms']:.0f} ms for a query with {found['candidates']} texts",
        f"{1 - found['first_kept']:.0%} of the queries have another first text",
        *(
            [f"nDCG@10 {found['before']['ndcg']:.3f} before, {found['after']['ndcg']:.3f} after"]
            if found["before"]
            else []
        ),
    ):
        sheet.y += LINE
        sheet.text(LEFT, sheet.y, said)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _cut(name: str, most: int) -> str:
    """Return a name that fits: its middle is left out, as many names differ at their ends."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[half - most + 1 :]}"
