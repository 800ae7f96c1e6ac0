"""`emberd rerank`: texts sorted by their relevance to a query, by the running server or without."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from emberd.cli.context import Root, complete_model, print_warning
from emberd.cli.texts import given, in_batches
from emberd.units import format_places

if TYPE_CHECKING:
    from emberd.client.clients import Client
    from emberd.config.load import Config
    from emberd.ranking import Ranked

    Batch = tuple[Sequence[Ranked], Sequence[int]]
    """The texts of a batch, and the places of those that were cut."""


def rerank(
    ctx: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="What the texts should be about.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="Texts to sort; without any, each line of stdin is one."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Name or alias of a re-ranker; the config file's default_reranker if left out.",
            autocompletion=complete_model,
        ),
    ] = None,
    top_n: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Print only the best N.")
    ] = None,
    jsonl: Annotated[
        bool,
        typer.Option("--jsonl", help='Read stdin as JSON lines, each a "text" or {"text": "..."}.'),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each text.")
    ] = False,
) -> None:
    """Sort texts by relevance to a query, the best first.

    Uses the running server; without one, loads the model just for this command. A score is between
    0 and 1, and means something only beside others for the same query.
    """
    from emberd.client import clients
    from emberd.ranking import Ranked, in_order

    source = given(texts, jsonl=jsonl, example='emberd rerank "a question" "some text" "another"')
    root: Root = ctx.obj
    config = root.load()
    asked = model or config.settings.default_reranker
    name = config.catalog.find(asked, kinds=("rerank",)).spec.name
    server = clients.find(config)
    kept: list[str] = []
    found: list[Ranked] = []
    cut: list[int] = []
    batches = _kept(in_batches(source), kept)
    answers = (
        _by_server(server, query, batches, name)
        if server
        else _by_pool(config, query, batches, name)
    )
    for ranked, truncated in answers:  # scores of pairs do not depend on each other
        done = len(found)
        found += [Ranked(done + each.index, each.logit) for each in ranked]
        cut += [done + place for place in truncated]
    for each in in_order(found)[:top_n]:
        text = kept[each.index]
        row = {"index": each.index, "score": each.score, "logit": each.logit, "text": text}
        sys.stdout.write((json.dumps(row) if as_json else f"{each.score:.4f}  {text}") + "\n")
    if cut:
        places = format_places(cut).replace(",", ", ")
        print_warning(f"Cut, as they are too long for {name}: texts {places}.")


def _kept(batches: Iterable[list[str]], kept: list[str]) -> Iterator[list[str]]:
    """Pass batches on, and remember their texts, which are printed in another order."""
    for batch in batches:
        kept += batch
        yield batch


def _by_server(
    server: "Client", query: str, batches: Iterable[list[str]], model: str
) -> Iterator["Batch"]:
    for batch in batches:
        answer = server.rerank(query, batch, model=model)
        yield answer.results, answer.truncated


def _by_pool(
    config: "Config", query: str, batches: Iterable[list[str]], model: str
) -> Iterator["Batch"]:
    import asyncio

    from emberd.pool.job import Answer
    from emberd.pool.manager import Pool
    from emberd.pool.request import EmbedRequest
    from emberd.ranking import rank

    async def answers() -> list[Answer]:
        async with Pool(config) as pool:
            return [
                await pool.embed(
                    EmbedRequest(texts=batch, query=query, model=model, encoding="raw")
                )
                for batch in batches
            ]

    for answer in asyncio.run(answers()):
        yield rank(answer.fragments), answer.truncated
