"""`emberd map`: a store as a Parquet file, with the places of its rows on a map."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emberd.cli.context import AsJson
from emberd.cli.migrate import Kind, Options, StoreName, open_ref
from emberd.cli.progress import form_of, say_steps
from emberd.errors import StoreError


def map_store(
    ctx: typer.Context,
    store: StoreName,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FILE.parquet",
            help="The file to write; one that is there is replaced.",
        ),
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Embed 500 rows again with every model on this machine that has vectors of this"
            " size, to tell which rows it made.",
        ),
    ] = False,
    kind: Kind = None,
    options: Options = None,
    as_json: AsJson = False,
) -> None:
    """Write a store and its map as Parquet, for Embedding Atlas.

    Columns: key, text, vector, x, y (its first two principal components) and model. The store is
    only read. Of more than 100,000 rows, an evenly spread sample is written. It needs the extra
    emberd[parquet]. To look at the map without a file, run `emberd open`, and choose Map.
    """
    from emberd.atlas.chart import Chart
    from emberd.atlas.holding import hold
    from emberd.atlas.origins import find_origins
    from emberd.atlas.parquet import write
    from emberd.corpus.needed import require_pyarrow

    require_pyarrow()
    if not out.absolute().parent.is_dir():
        raise StoreError(
            f"{out} cannot be written: there is no folder {out.absolute().parent}.",
            hint="Make the folder, or choose another place.",
        )
    config, ref = open_ref(ctx, store, kind, options)
    say = say_steps(form_of(as_json=as_json))
    stamp = ref.store.stamp()
    say("reading every row")
    held = hold(ref.store, most_characters=None)
    say("computing principal components")
    chart = Chart(held)
    if check:
        chart.origins = find_origins(
            config,
            ref,
            held,
            lambda model, *_: say(f"embedding {len(held.whole)} rows with {model}"),
        )
    about: dict[str, Any] = {
        "store": ref.name, "kind": ref.store.kind, "rows": held.shape.rows,
        "sampled": held.is_sample, "unusable": held.unusable,
        "dimensions": held.shape.dimensions, "dtype": held.shape.dtype,
        "model": stamp and stamp.model, "fingerprint": stamp and stamp.fingerprint,
        "shares": chart.shares[:2], **chart.origins.to_dict(),
    }  # fmt: skip
    write(chart, out, about, model=stamp.model if stamp else None)
    if as_json:
        typer.echo(json.dumps({"file": str(out), "written": len(held.keys), **about}))
        return
    typer.echo(f"{len(held.keys)} of {held.shape.rows} rows are in {out}.")
    for group in chart.origins.groups:
        made = f"made by {group.model}" if group.model else "made by none of the models here"
        typer.echo(f"  {group.points} {made} ({group.checked} embedded again)")
