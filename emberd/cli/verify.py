"""`emberd verify`: load models in a fresh worker and check what they give."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root
from emberd.errors import EmberdError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.pool.manager import Pool
    from emberd.registry.spec import ModelSpec

PROBES = (
    "A short sentence.",
    "",
    "def add(a, b): return a + b",
    "Die Straße ist naß.",
    "东京的天气怎么样？",
    "The kiln is heated slowly, so that the clay gives up its water before it is fired.",
    "word " * 600,
    "7",
)


def verify(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Models; without, all whose files are here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load models and check dimensions, length and finiteness of what they give."""
    root: Root = ctx.obj
    config = root.load()
    specs = [config.catalog.get(name) for name in names] if names else _local(config)
    rows = asyncio.run(_verify(config, specs))
    if as_json:
        typer.echo(json.dumps({"ok": all(row["ok"] for row in rows), "checks": rows}))
    elif not rows:
        typer.echo("No model's files are here yet; try `emberd pull minilm`.")
    else:
        from emberd.cli import render

        render.show(render.verify_table(rows))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _local(config: "Config") -> list["ModelSpec"]:
    from emberd.registry.local import find_local

    return [
        spec
        for spec in config.catalog
        if any(find_local(source, config.homes.hub) for source in spec.sources)
    ]


async def _verify(config: "Config", specs: list["ModelSpec"]) -> list[dict[str, Any]]:
    from emberd.pool.manager import Pool

    rows = []
    async with Pool(config) as pool:  # its own: a server's workers are not asked
        for spec in specs:
            rows += await _verify_one(pool, spec)
            await pool.unload(spec.name)
    return rows


async def _verify_one(pool: "Pool", spec: "ModelSpec") -> list[dict[str, Any]]:
    import numpy as np

    from emberd.pool.manager import EmbedRequest

    def row(check: str, ok: bool, detail: str) -> dict[str, Any]:
        return {"model": spec.name, "check": check, "ok": bool(ok), "detail": detail}

    async def vectors(texts: tuple[str, ...]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        answer = await pool.embed(EmbedRequest(texts=texts, model=spec.name, encoding="raw"))
        return np.stack([np.frombuffer(fragment, "<f4") for fragment in answer.fragments])

    try:
        loaded = await pool.load(spec.name)
        batch = await vectors(PROBES)
        alone = np.concatenate([await vectors((text,)) for text in PROBES])
    except EmberdError as error:
        return [row("load", False, f"{error.message} {error.hint or ''}".strip())]
    lengths = np.linalg.norm(batch, axis=1)
    cosines = (batch * alone).sum(axis=1) / (lengths * np.linalg.norm(alone, axis=1))
    rows = [
        row("load", True, f"{loaded['backend']} {loaded['compute']}, {loaded['last_load_s']} s"),
        row(
            "dimensions",
            batch.shape[1] == spec.dimensions,
            f"{batch.shape[1]}, the registry says {spec.dimensions}",
        ),
        row("finite", np.isfinite(batch).all(), f"{len(PROBES)} probe texts"),
        row("alone = in a batch", cosines.min() > 0.9999, f"lowest cosine {cosines.min():.6f}"),
    ]
    if spec.normalize:
        off = float(np.abs(lengths - 1).max())
        rows.append(row("unit length", off < 1e-3, f"furthest from 1: off by {off:.1e}"))
    return rows
