"""What `emberd migrate` says about rows that are chunks, and about rows that a model would cut."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emberd.migrate.check import StoreReport
    from emberd.migrate.plan import Plan
    from emberd.migrate.store_ref import StoreRef
    from emberd.spaces.chunks import StoreChunking


def check_sentences(report: "StoreReport", ref: "StoreRef") -> list[str]:
    """Say how rows were cut, if new ones will be cut elsewhere, and if the default cuts them."""
    lines = [f"The rows are chunks: {report.chunk}."] if report.chunk else []
    new = report.chunk_of_new
    if new and new != report.chunk:
        lines.append(
            f"Warning: `stores.{ref.name}.chunk` says that new rows are cut in another way: {new}."
            " A search finds both, side by side. Correct the entry; or cut all documents again,"
            f" then run `emberd migrate check {ref.argument} --recut` to record that."
        )
    if report.chunk and report.chunk.late:
        lines.append(
            "Their vectors were made with the whole text around each, so they cannot be compared"
            " with those of the rows alone, and `migrate run` refuses them."
        )
        return lines
    cut = report.truncated or 0
    return lines + _cut(report.default, report.max_tokens, report.chunk, cut, report.sampled)


def plan_sentences(plan: "Plan") -> list[str]:
    """Say how rows were cut, and if the new model would cut them once more."""
    lines = [f"The rows are chunks ({plan.chunk}) and stay as they are."] if plan.chunk else []
    model, most = plan.target.model, plan.target.options.max_tokens
    return lines + _cut(model, most, plan.chunk, plan.truncated, plan.sampled)


def _cut(
    model: str, most: "int | None", chunk: "StoreChunking | None", truncated: int, sampled: int
) -> list[str]:
    """Warn if rows are longer than a model takes, as far as a sample or their size shows."""
    too_large = chunk is not None and most is not None and chunk.size >= most
    if not (truncated or too_large):
        return []
    takes = f"{model} takes {most or 'fewer'} tokens, special ones included"
    size = f", and chunks have up to {chunk.size}" if chunk and too_large else ""
    rows = f": it cuts {truncated} of {sampled} sampled rows" if sampled else ""
    return [
        f"Warning: {takes}{size}{rows}. What is cut off is in no vector. Choose a model that takes"
        " more, or cut the documents into smaller chunks."
    ]
