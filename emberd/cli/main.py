"""The command line: parse, call, print. Failures are printed here (`serve` prints some itself).

Commands import what they need when they run, so that each starts fast.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from emberd import __version__
from emberd.cli import (
    bench,
    doctor,
    embed,
    migrate,
    models,
    serve,
    server,
    service,
    settings,
    use,
    verify,
)
from emberd.cli.context import Root, print_error
from emberd.errors import EmberdError

app = typer.Typer(
    name="emberd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(models.pull)
app.command("list")(models.list_models)
app.command()(models.remove)
app.command()(server.ps)
app.command()(embed.embed)
app.command()(server.load)
app.command()(server.unload)
app.command()(verify.verify)
app.command()(doctor.doctor)
app.command()(use.use)
app.command()(settings.reload)
app.add_typer(service.app, name="service")
app.command()(bench.bench)
app.add_typer(settings.app, name="config")
app.add_typer(migrate.app, name="migrate")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"emberd {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", help="Use this config file; also after a command.", show_default=False
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """A local embedding server: many models, one registry, memory really given back."""
    del version  # its callback did the work
    ctx.obj = Root(config)


def config_first(arguments: list[str]) -> list[str]:
    """Move `--config FILE` from behind a command to where it belongs, before it."""
    first: list[str] = []
    rest = list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    for place in range(end - 1, -1, -1):
        if rest[place].startswith("--config="):
            first[:0] = [rest.pop(place)]
        elif rest[place] == "--config" and place + 1 < end:
            first[:0] = [rest.pop(place), rest.pop(place)]
    return first + rest


def main() -> None:
    """Run the command line; turn any `EmberdError` into two lines on stderr and exit code 1."""
    try:
        app(config_first(sys.argv[1:]))
    except EmberdError as error:
        print_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
