"""`emberd embed-files`: files of rows in, a folder of Parquet with their vectors out."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from emberd.cli.cluster import RayAddress, require_ray
from emberd.cli.context import AsJson, ModelName, Root, print_warning, resumable
from emberd.cli.progress import AsLines, count_rows, form_of, say_steps
from emberd.errors import BadOptionError

if TYPE_CHECKING:
    from emberd.corpus.job import Job
    from emberd.registry.spec import InputType


def embed_files(
    ctx: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Files of Parquet, JSONL, CSV or plain text."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where the vectors go.")],
    text: Annotated[
        str, typer.Option("--text", metavar="COLUMN", help="The column that has the texts.")
    ] = "text",
    column: Annotated[
        str, typer.Option("--column", metavar="COLUMN", help="The column for the vectors.")
    ] = "embedding",
    model: ModelName = None,
    input_type: Annotated[
        str | None,
        typer.Option(metavar="TYPE", help="query or document, for models that distinguish them."),
    ] = None,
    part_rows: Annotated[
        int, typer.Option(metavar="N", min=1, help="Rows in each file that is written.")
    ] = 10_000,  # `job.PART_ROWS`, which cannot be imported here: NumPy would be, too
    ray: RayAddress = None,
    as_json: AsJson = False,
    as_lines: AsLines = False,
) -> None:
    """Embed the rows of files into a folder of Parquet files.

    Each row is there once, with all of its columns and its vector; a row without a text has none.
    If it is stopped, at any moment, run the same command to continue. Of a plain text file, each
    line is a row. Uses the running server; without one, loads the model just for this command. It
    needs the extra emberd[parquet].
    """
    from emberd.corpus.needed import require_pyarrow

    if input_type not in (None, "query", "document"):
        raise BadOptionError(f"--input-type: {input_type!r} is neither query nor document.")
    require_pyarrow()
    if ray is not None:
        require_ray()

    from emberd.corpus.inputs import kind_of
    from emberd.corpus.job import opened, run
    from emberd.migrate.embedding import find_target, open_embedder

    for path in inputs:
        kind_of(path)  # before the model is loaded
    form = form_of(as_json=as_json, as_lines=as_lines)
    say = say_steps(form)
    root: Root = ctx.obj
    config = root.load()
    # What the pool logs about its workers is not part of the output.
    logging.getLogger("emberd").addHandler(logging.NullHandler())
    asked = cast("InputType | None", input_type)
    named = config.catalog.find(model or config.settings.default, asked, kinds=("embed",))
    with resumable(), open_embedder(config) as embedder:
        say(f"loading {named.spec.name}")
        target = find_target(config, embedder, named.spec.name, input_type=named.role)
        say("looking through the files")
        with (
            opened(out, inputs, target, text=text, column=column, part_rows=part_rows) as job,
            count_rows(form) as progress,
        ):
            before = job.counts.rows
            if ray is not None:
                from emberd.ray import data

                embedder.release(named.spec.name)  # the nodes have it, this one among them
                data.run(job, target, config, progress(out), address=ray)
            else:
                run(job, embedder, target, progress(out))
            _print(job, before, as_json=as_json)


def _print(job: "Job", before: int, *, as_json: bool) -> None:
    about, counts = job.manifest.decides, job.counts
    if as_json:
        row = {"out": str(job.folder), **about, **asdict(counts), "rows_before": before}
        typer.echo(json.dumps({**row, "parts": len(job.done)}))
        return
    went_on = f" ({before} of them before)" if before else ""
    typer.echo(
        f"{job.folder} has {counts.rows} rows{went_on} in {len(job.done)} files, with vectors of"
        f" {about['model']} ({about['dimensions']} dimensions, fingerprint {about['fingerprint']})"
        f" in the column {about['column']!r}."
    )
    if counts.without_text:
        typer.echo(f"{counts.without_text} rows have no text, and so no vector.")
    if counts.cut:
        print_warning(
            f"{counts.cut} texts were cut after the most tokens that {about['model']} reads;"
            " the rest is not in their vectors."
        )
