"""What `emberd migrate` prints: sentences for people, rows for JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from emberd.cli import migrate_chunks
from emberd.dtypes import STORED
from emberd.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from emberd.config.load import Config
    from emberd.dtypes import Dtype
    from emberd.migrate.check import StoreReport
    from emberd.migrate.health import Health
    from emberd.migrate.plan import Plan
    from emberd.migrate.store_ref import StoreRef
    from emberd.migrate.verify import Migrated
    from emberd.spaces.stores import KnownStore
    from emberd.stores.base import Copy, Key

KEYS_SHOWN = 8
KEYS_IN_JSON = 20
NEAR = 0.9  # a mean cosine from which vectors are of the same model, or of one made from it


def role_of(ref: "StoreRef") -> str:
    """Return the name of the setting that decides which model a store's users get."""
    return f"`stores.{ref.name}.model`" if ref.served_by else "the default"


def after_undo(config: "Config", ref: "StoreRef", holds: "KnownStore | None") -> str:
    """Say what to do once a store is restored."""
    from emberd.spaces.lock import LockFile

    asked = config.catalog.get(ref.served_by or config.settings.default).name
    role = role_of(ref)
    if holds is None or holds.model is None:
        check = f"`emberd migrate check {ref.argument}` shows which model its vectors are from"
        if ref.is_path:  # whether its users name a model is not known
            role = "the model that its users ask for, or the default if they do not name one,"
        return f"Restart the programs that use it. {check}; {role} must be that model."
    entry = LockFile(config.homes.state).read().get(asked)
    if holds.fits(asked, entry):
        return f"Restart the programs that use it. Its vectors fit {role}, {asked}."
    change = f"set {role} to {holds.model}" if ref.served_by else f"`emberd use {holds.model}`"
    if ref.is_path:
        change = f"have its users ask for {holds.model}, or run {change}"
    found = f"It holds vectors of {holds.model}, but {role} is {asked}"
    return f"{found}: {change}, and restart the programs that use it."


def status_sentences(
    ref: "StoreRef", found: "dict[str, Any]", noted: "KnownStore | None"
) -> list[str]:
    """Say what is known about a store; `found` is what `emberd.migrate.status` returns."""
    lines: list[str] = []
    if found["recovered"]:
        lines.append(found["recovered"])
    stamp, staged = found["stamp"], found["staged"]
    lines.append(
        f"{ref.name}: {found['rows']} rows of {_size(found['dimensions'], found['dtype'])}, "
        + (
            f"migrated to {stamp['model']} ({stamp['fingerprint']}) at {stamp['made_at']}."
            if stamp
            else "never migrated"
            + ("." if noted else " (`emberd migrate check` finds out which model made them).")
        )
    )
    if noted and not (stamp and noted.model == stamp["model"]):
        lines.append(f"It was found to hold vectors of {noted.model or 'more than one model'}.")
    if noted and noted.chunk:
        lines.append(f"The rows are chunks: {noted.chunk}.")
    if staged:
        doing = "under way" if found["under_way"] else "stopped; `emberd migrate run` continues it"
        lines.append(
            f"A migration to {staged['model']} is {doing}: {staged['rows']} rows are ready."
        )
    for backup in found["backups"]:
        size = format_size(backup["bytes"])
        lines.append(
            f"Backup from before {backup['model']}, {backup['at']}: {backup['path']}, {size}"
        )
    for path in found["unreadable"]:
        lines.append(
            f"Backup that `undo` cannot use, because its note is damaged or missing: {path}"
        )
    for copy in found["copies"]:
        lines.append(f"Copy from before something was taken back: {copy}")
    return lines


def plan_row(ref: "StoreRef", plan: "Plan") -> dict[str, Any]:
    """Return what moving a store takes, for JSON."""
    return {
        "store": ref.name,
        "path": ref.address,
        "model": plan.target.model,
        "fingerprint": plan.target.fingerprint,
        "rows": plan.shape.rows,
        "without_text": len(plan.lacking.text),
        "without_text_keys": plan.lacking.text[:KEYS_IN_JSON],
        "copies": [asdict(each) for each in plan.copies],
        "without_vector": len(plan.lacking.vector),
        "without_vector_keys": plan.lacking.vector[:KEYS_IN_JSON],
        "dimensions_before": plan.shape.dimensions,
        "dimensions": plan.target.dimensions,
        "dtype_before": plan.shape.dtype,
        "dtype": plan.target.dtype,
        "loss": asdict(plan.loss) if plan.loss else None,
        "chunk": asdict(plan.chunk) if plan.chunk else None,
        "max_tokens": plan.target.options.max_tokens,
        "sampled": plan.sampled,
        "truncated": plan.truncated,
        "staged": plan.staged,
        "caveats": list(plan.caveats),
        "plan": {
            "minutes": round(plan.seconds / 60, 2),
            "disk_bytes": plan.disk_bytes,
            "backup_bytes": plan.cost.backup_bytes,
            "locked_s": round(plan.cost.locked_s, 2),
        },
    }


def plan_sentences(ref: "StoreRef", plan: "Plan") -> str:
    """Say what moving a store takes, for people."""
    shape, cost, lacking = plan.shape, plan.cost, plan.lacking
    lines = [
        f"{ref.name}: {shape.rows} rows, {_size(shape.dimensions, shape.dtype)},"
        f" to {plan.target.model}, {_size(plan.target.dimensions, plan.target.dtype)}.",
        f"It takes about {_minutes(plan.seconds)}"
        + (f" ({plan.rows_per_s:.0f} rows/s measured)" if shape.rows else "")
        + f" and {format_size(plan.disk_bytes)} of disk, {format_size(cost.backup_bytes)} of it for"
        f" the backup. Writers wait about {cost.locked_s:.1f} s at the end.",
    ]
    if plan.target.dtype != shape.dtype:
        lines += _dtype_sentences(plan)
    lines += migrate_chunks.plan_sentences(plan)
    if plan.staged:
        lines.append(f"{plan.staged} rows are ready from a run that was stopped.")
    lines += _copies_sentences(ref, plan.copies)
    if lacking.text:
        lines.append(
            f"{len(lacking.text)} vectors have no text ({_few(lacking.text)}) and will be set aside"
            " in the same file."
        )
    if lacking.vector:
        lines.append(
            f"{len(lacking.vector)} texts have no vector ({_few(lacking.vector)}), and get none."
        )
    lines += [f"Not promised here: {caveat}" for caveat in plan.caveats]
    return "\n".join(lines)


SEARCH: "Mapping[Dtype, str]" = {
    "float": "float32 vectors (`MATCH ?`)",
    "int8": "`output_dtype: int8` (`MATCH vec_int8(?)`)",
    "ubinary": "`output_dtype: ubinary` (`MATCH vec_bit(?)`; not `vec_quantize_binary`, which has"
    " the bits in another order)",
}
"""With what a store of each dtype is searched and written, in sqlite-vec's SQL."""


def _size(dimensions: int, dtype: "Dtype") -> str:
    return f"{dimensions} dimensions" + ("" if dtype == "float" else f" of {STORED[dtype]}")


def _dtype_sentences(plan: "Plan") -> list[str]:
    """Say what another dtype gains and costs, and what the store's programs have to do."""
    shape, target = plan.shape, plan.target
    lines = [
        f"A vector takes {target.vector_bytes} bytes instead of {shape.vector_bytes}."
        f" Programs must search and write it with {SEARCH[target.dtype]} from then on."
    ]
    if plan.loss:
        loss = plan.loss
        lines.insert(
            0,
            f"Of the {loss.nearest} nearest neighbours of a row, {loss.kept:.1%} stay the same"
            f" (measured with {loss.rows} of its rows, compared with each other).",
        )
    elif target.dtype != "float":
        lines.insert(0, "The store has too few rows to measure what that costs.")
    return lines


def _copies_sentences(
    ref: "StoreRef", copies: "Iterable[Copy]", *, moved: bool = False
) -> list[str]:
    """Say where else vectors may be; `moved`: the store's own are already replaced."""
    lines = []
    for each in copies:
        line = f"{each.column} also holds {each.rows} BLOBs the size of a vector; {each.same}"
        line += " are copies of the store's own vectors"
        line += f" (matched by {each.key})" if each.key else ""
        if each.same < each.rows:
            line += f", but not those with rowid {_few(each.others)}" if each.others else ""
        option = f"`-o also={each.column}`"
        if each.moves:
            line += f". {each.same} {'were' if moved else 'will be'} migrated too"
            line += "; the others stay as they are." if each.same < each.rows else "."
        elif each.same and moved:
            line = f"Warning: {each.column} still holds {each.same} of the old vectors."
            if each.movable:
                line += f" `emberd migrate undo {ref.argument}`, then `run` with {option},"
                line += " migrates them too."
        elif each.same and each.movable:
            line += f". {option} migrates them too; without it they stay as they are."
        else:
            line += ". If they are vectors, they stay as they are."
        lines.append(line)
    return lines


def migrated_sentences(ref: "StoreRef", migrated: "Migrated", model: str, served_by: str) -> str:
    """Say what came of a store, for people; `served_by` is the model that its users get now."""
    indexes = f" ({migrated.index_s:.1f} s for indexes)" if migrated.index_s else ""
    lines = [
        f"Migrated {ref.name} to {model}: {migrated.rows} rows, writers waited"
        f" {migrated.locked_s:.1f} s{indexes}. Checked: rows, dimension, search",
    ]
    if migrated.unverified:
        lines[0] += f". No row was embedded again to compare: {migrated.unverified}"
        lines.append(f"To do that: `emberd migrate check {ref.argument} --sample 200`.")
    elif migrated.lowest_cosine is None:
        lines[0] += "; the store has no row to embed again."
    else:
        lines[0] += f", and rows embedded again (lowest cosine {migrated.lowest_cosine:.4f})."
    if migrated.late:
        lines.append(
            f"{migrated.late} rows were written to the old vectors during the swap, and were"
            " brought over. Programs that write there still: restart them, then run this again."
        )
    if migrated.gone:
        lines.append(f"{migrated.gone} of these rows no longer exist: they have been deleted.")
    lines += _copies_sentences(ref, migrated.copies, moved=True)
    if migrated.set_aside:
        lines.append(
            f"{migrated.set_aside} vectors without a text were moved to {migrated.set_aside_in}."
            " Once their texts are in the store, run this again."
        )
    if ref.store.settings:
        lines.append(f"{ref.store.settings} names the new model.")
    if migrated.backup:
        lines.append(
            f"Backup: {migrated.backup} (`emberd migrate undo {ref.argument}` restores it)."
        )
    if migrated.strays:
        whose = "in an unknown space" if migrated.unverified else "with another model's vectors"
        lines.append(
            f"{migrated.strays} rows have been written since, {whose}. Once"
            f" {role_of(ref)} is right, run this again with --force."
        )
    if served_by != model:
        todo = (
            f"Its users ask for {served_by}: set `stores.{ref.name}.model` to {model} now"
            if ref.served_by
            else f"The default is still {served_by}: run `emberd use {model}` now"
        )
        lines.append(f"{todo}, so that queries are in the same space as the store.")
    lines.append("Restart the programs that use the store, so that they read its new settings.")
    return "\n".join(lines)


def _few(keys: "Sequence[Key]") -> str:
    return ", ".join(map(str, keys[:KEYS_SHOWN])) + (", ..." if keys[KEYS_SHOWN:] else "")


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def show_report(report: "StoreReport", ref: "StoreRef") -> None:
    """Print what a check found."""
    from emberd.cli import render

    size = _size(report.dimensions, report.dtype)
    typer.echo(f"{ref.name} ({report.kind}): {report.rows} rows, {size}.")
    for line in [*_health_sentences(report.health), *_copies_sentences(ref, report.copies)]:
        typer.echo(f"  {line}")
    if report.candidates:
        render.show(render.candidate_table([asdict(each) for each in report.candidates]))
    typer.echo(_verdict_sentence(report, ref))
    for caveat in report.caveats:
        typer.echo(f"A run cannot promise here: {caveat}")
    for line in migrate_chunks.check_sentences(report, ref):
        typer.echo(line)
    if report.verdict == "mixed" or "" in report.made_by:
        for model, keys in report.made_by.items():
            shown = f"{len(keys)} of {report.sampled}: {_few(keys)}"
            typer.echo(f"  {model or 'no model here'}: {shown}")
    if report.work and report.verdict != "compatible":
        work = report.work
        typer.echo(
            f"Embedding it again with {work.model} takes about {_minutes(work.minutes * 60)} and"
            f" {work.megabytes:.0f} MB; writers wait about {work.locked_s:.1f} s at the end:"
            f" `emberd migrate run {ref.argument} --to {work.model}`."
        )
    typer.echo(f"Why did my search get worse? {report.why_worse}")


def _health_sentences(health: "Health") -> list[str]:
    counts = (
        (health.without_vector, "texts have no vector"),
        (health.without_text, "vectors have no text"),
        (health.empty_text, "texts are NULL or empty"),
        (health.bad_vector, "vectors are zero or not finite"),
        (health.not_unit, "vectors do not have length 1"),
        (health.duplicates, "rows repeat another row's text"),
    )
    lines = [f"{count} {what}." for count, what in counts if count]
    if health.textless:
        lines.append(
            f"Vectors without a text: {_few(health.textless)}. `migrate run` refuses them, or with"
            " --set-aside moves them to another table of the same file."
        )
    if health.vectorless:
        lines.append(
            f"Texts without a vector: {_few(health.vectorless)}. `migrate run` leaves them as they"
            " are."
        )
    return lines


def _verdict_sentence(report: "StoreReport", ref: "StoreRef") -> str:
    if report.judged_by == "sample" and not report.sampled:
        return _verdict_without_sample(report, ref)
    default = report.default
    role = "the model that its users name" if ref.served_by else "the default"
    made = f"made by {report.model}"
    if report.judged_by == "stamp":
        made += " according to its stamp (--sample embeds rows again to check)"
    why = f" ({report.why})" if report.why else ""
    return {
        "compatible": f"compatible: {made}, which fits {role}, {default}.",
        "re-embed": f"re-embed: {made}; {role} is {default}, another space{why}.",
        "mixed": "mixed: the vectors were made by several models.",
        "unknown": "unknown: no model on this machine made these vectors" + _nearest(report),
    }[report.verdict]


def _nearest(report: "StoreReport") -> str:
    """Say which model comes near to vectors that none here made, and what follows from it."""
    if report.chunk and report.chunk.late:
        return ", as far as the rows alone show."
    near = [each for each in report.candidates if each.mean_cosine >= NEAR]
    if not near:
        return "; `emberd pull` others."
    nearest = max(near, key=lambda each: each.mean_cosine)
    return (
        f". {nearest.model} comes near them (mean cosine {nearest.mean_cosine:.3f}), but only 0.999"
        " is the same space. Another server (such as Ollama) may have made them under that model's"
        " name, from other files or without its prompts, or another precision of it. Queries of"
        f" {nearest.model} do not fit them: embed the store again."
    )


def _verdict_without_sample(report: "StoreReport", ref: "StoreRef") -> str:
    """Say what is known about a store that is empty, or has no row that can be embedded."""
    default, health = report.default, report.health
    role = "the model that its users name" if ref.served_by else "the default"
    if report.verdict == "compatible":
        return f"compatible: the store is empty, and its dimension fits {role}, {default}."
    if report.verdict == "re-embed":
        return (
            f"re-embed: the store is empty, and its dimension does not fit {role}, {default}:"
            f" `emberd migrate run {ref.argument} --to {default}`."
        )
    what = (
        "no row has a text"
        if health.empty_text == health.rows
        else "none of the rows sampled has a text and a usable vector"
    )
    return f"unknown: {what} to compare with."
