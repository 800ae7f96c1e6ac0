"""Why did my search get worse? What a check found, as one paragraph, the weightiest first."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from emberd.migrate.health import Health

if TYPE_CHECKING:
    from emberd.migrate.check import StoreReport

NOTICED = 0.01  # a share of the rows that somebody may notice


def why_worse(report: "StoreReport") -> str:
    """Return what makes searches in a store worse, and what helps; or what else to look at."""
    found = [*_space(report), *_rows(report.health), *_cuts(report)]
    if found:
        return " ".join(found)
    if not report.rows:
        return "The store has no rows that could be found."
    return (
        "Nothing here explains it: the vectors are those of the model that is asked, and the rows"
        " are whole. Look at what has changed outside: whether queries are sent as queries and"
        " texts as documents (`input_type`), whether the index was built for other vectors, and how"
        " many rows have been added, as the same ten places are then shared by more of them."
    )


def _space(report: "StoreReport") -> Iterator[str]:
    asked = report.default
    if report.verdict == "mixed":
        total = sum(map(len, report.made_by.values())) or 1
        parts = [
            f"{len(keys) / total:.0%} by {model or 'no model on this machine'}"
            for model, keys in sorted(report.made_by.items(), key=lambda each: -len(each[1]))
        ]
        yield (
            f"The store holds vectors of several models ({', '.join(parts)}), and a query is asked"
            f" with {asked} alone: the rows of the others come up by chance, or not at all. Embed"
            " all of it again with one model."
        )
    elif report.verdict == "re-embed":
        yield (
            f"The rows were made by {report.model or 'another model'}, and queries are asked with"
            f" {asked}: their vectors are of different spaces, so what is nearest is chance. Either"
            " ask the model that made them, or embed the store again."
        )
    elif report.verdict == "unknown" and report.rows:
        yield (
            f"No model on this machine made these vectors, so a query asked with {asked} has"
            " nothing in common with them. Pull the model that did, or embed the store again."
        )


def _rows(health: Health) -> Iterator[str]:
    rows = health.rows or 1
    if health.bad_vector:
        yield (
            f"{health.bad_vector} vectors are zero, not finite or of another size, and spoil every"
            " comparison with them."
        )
    if health.not_unit > NOTICED * rows:
        yield (
            f"{health.not_unit / rows:.0%} of the vectors do not have length 1: by inner product or"
            " L2 distance, long ones come up, or short ones stay away, whatever they say; use"
            " cosine, or normalize them."
        )
    if health.without_vector > NOTICED * rows:
        yield f"{health.without_vector} texts have no vector and cannot be found."
    if health.duplicates > NOTICED * rows:
        yield (
            f"{health.duplicates / rows:.0%} of the rows repeat another row's text, and take places"
            " among the first that other texts would have had."
        )


def _cuts(report: "StoreReport") -> Iterator[str]:
    if report.truncated and report.sampled:
        yield (
            f"{report.default} reads only the first {report.max_tokens} tokens of a text:"
            f" {report.truncated / report.sampled:.0%} of the rows looked at are longer, and what"
            " comes after cannot be found. Cut the documents into chunks, or choose a model that"
            " reads more."
        )
    if report.chunk_of_new and report.chunk_of_new != report.chunk:
        yield "New rows are cut in another way than those that are there, and a search finds both."
