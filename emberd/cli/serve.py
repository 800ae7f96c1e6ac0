"""`emberd serve`: its options, and how it ends."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import Root, complete_model, print_error
from emberd.errors import ConfigError
from emberd.service.unit import CONFIG_EXIT

if TYPE_CHECKING:
    from emberd.config.document import Keys


def serve(
    ctx: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Listen on this address.", show_default="127.0.0.1"),
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="Listen on this port; 0 picks a free one, off uses none.",
            show_default="8767",
        ),
    ] = None,
    default: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model for requests that do not name one.",
            autocompletion=complete_model,
            show_default="minilm",
        ),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(metavar="LEVEL", help="debug, info, warning or error.", show_default="info"),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="First compile the default and pinned models. One that is not on this machine"
            " is downloaded and compiled at its first request.",
        ),
    ] = False,
    allow_open: Annotated[
        bool,
        typer.Option(
            "--allow-open", help="Accept other machines without a token (see docs/security.md)."
        ),
    ] = False,
) -> None:
    """Run the server until Ctrl-C.

    Models load at their first request. Options override the config file for this run. Exit code
    78: a setting must be corrected first.
    """
    root: Root = ctx.obj
    flags: dict[Keys, Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "allow_open"): allow_open or None,
        ("default",): default,
        ("log", "level"): log_level.lower() if log_level else None,
    }
    try:
        config = root.load(flags)

        if prepare:
            from emberd.cli.prepare import prepare_usual

            prepare_usual(config)

        from emberd.config.live import LiveConfig
        from emberd.server import run

        elsewhere = run.serve(LiveConfig(config, lambda: root.read(flags)))
    except ConfigError as error:
        print_error(error)
        raise typer.Exit(CONFIG_EXIT) from None
    if elsewhere:
        typer.echo(f"emberd is already running at {elsewhere}; see `emberd ps`.")
