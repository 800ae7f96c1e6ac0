"""`emberd open`, `ps`, `load`, `unload`: what a running server has loaded, and changing it."""

import json
from typing import Annotated
from urllib.parse import urlsplit

import typer

from emberd.cli.context import AsJson, Root, complete_model, print_warning
from emberd.errors import ConfigError

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="Name or alias, as `emberd list` shows it.",
        autocompletion=complete_model,
        show_default=False,
    ),
]


def open_page(ctx: typer.Context) -> None:
    """Open the page of the running server in the browser.

    It shows what is loaded and what it costs, lets you try the models, and draws stores. Prints its
    address, too. Starts no server: `emberd serve` does.
    """
    import webbrowser

    from emberd.client import finding

    root: Root = ctx.obj
    address = finding.require(root.find_address())
    if address.socket and urlsplit(address.url).port is None:
        raise ConfigError(
            "The server listens on its socket only, which no browser can reach.",
            hint="Set server.port in the config file, and restart the server.",
        )
    if not _has_page(root):
        raise ConfigError(
            "The server has no page: server.page is false.",
            hint="Set it to true in the config file, and restart the server.",
        )
    page = f"{address.url}/ui/"
    typer.echo(page)
    if address.token:
        typer.echo("The page will ask for a token of this server.")
    if not webbrowser.open(page):
        print_warning("No browser could be started. Open the address above in one.")


def _has_page(root: Root) -> bool:
    try:
        return root.read().settings.server.page
    except ConfigError:
        return True  # as far as anybody can tell from a broken file


def ps(
    ctx: typer.Context,
    as_json: AsJson = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show how long each part of a start took.")
    ] = False,
) -> None:
    """Show which models are loaded, and the memory they take."""
    root: Root = ctx.obj
    server = root.find_server()
    rows = server.models() if server else []
    alive = [row for row in rows if row["state"] != "cold"]
    for warning in server.health()["warnings"] if server else []:
        print_warning(f"{warning['message']} {warning['hint']}")
    if as_json:
        typer.echo(json.dumps({"models": alive}))
    elif not server:
        typer.echo("No emberd server is running; start one with `emberd serve`.")
    else:
        from emberd.cli import render
        from emberd.pool.status import ModelStatus

        if alive:
            models = [ModelStatus.from_json(row) for row in alive]
            render.show(render.process_table(models))
            if verbose:
                render.show(render.start_table(models))
        else:
            typer.echo(f"No model is loaded at {server.address}; the first request loads one.")


def load(ctx: typer.Context, name: Name = None, as_json: AsJson = False) -> None:
    """Load a model into the running server now.

    Without a name, loads the default model. This is optional: a model's first request loads it.
    """
    root: Root = ctx.obj
    row = root.require_server().load(name)
    if as_json:
        typer.echo(json.dumps(row))
    else:
        typer.echo(f"{row['name']} is {row['state']} after {row['last_load_s']} s.")


def unload(ctx: typer.Context, name: Name = None, as_json: AsJson = False) -> None:
    """Unload a model and free its memory.

    Without a name, unloads all models. A model's next request loads it again.
    """
    root: Root = ctx.obj
    names = root.require_server().unload(name)
    if as_json:
        typer.echo(json.dumps({"status": "unloaded", "models": names}))
    else:
        typer.echo(f"Unloaded {', '.join(names)}." if names else "No model was loaded.")
