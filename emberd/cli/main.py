"""The commands, and how each ends: exit codes and errors (`serve` prints some itself).

Commands import what they need when they run, so that each starts fast.
"""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from emberd import __version__
from emberd.cli import (
    add,
    bench,
    cache,
    chunk,
    compare,
    context,
    doctor,
    embed,
    embed_files,
    examples,
    map,
    migrate,
    models,
    prepare,
    ray,
    rerank,
    serve,
    server,
    service,
    settings,
    use,
    verify,
)
from emberd.cli.context import Root, print_error, print_problem
from emberd.config.paths import home_folder
from emberd.errors import ConfigError, EmberdError
from emberd.interrupts import is_interrupt

USAGE: type[Exception] = typer.BadParameter.mro()[2]
"""`ClickException`, which Typer takes from Click or from its own copy, by version."""

USAGE_EXIT, INTERRUPTED_EXIT = 2, 130
UNWRITABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = typer.Typer(
    name="emberd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(models.pull)
app.command()(add.add)
app.command()(prepare.prepare)
app.command("list")(models.list_models)
app.command()(models.remove)
app.command("open")(server.open_page)
app.command()(server.ps)
app.command()(embed.embed)
app.command("embed-files")(embed_files.embed_files)
app.command()(rerank.rerank)
app.command()(chunk.chunk)
app.command()(server.load)
app.command()(server.unload)
app.command()(verify.verify)
app.command()(doctor.doctor)
app.command()(use.use)
app.command()(settings.reload)
app.add_typer(service.app, name="service")
app.command()(compare.compare)
app.command()(bench.bench)
app.add_typer(cache.app, name="cache")
app.add_typer(settings.app, name="config")
app.add_typer(migrate.app, name="migrate")
app.command("map")(map.map_store)
app.add_typer(ray.app, name="ray")
examples.add_to(app)


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
            "--config",
            metavar="FILE",
            help="Use this config file (before or after a command).",
            show_default=False,
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """A local server that turns texts into vectors, with many models.

    To begin, run `emberd serve`, and in another terminal `emberd embed "some text"`. If something
    does not work, run `emberd doctor`. To read about a command, run `emberd COMMAND --help`.
    """
    del version  # its callback did the work
    ctx.obj = Root(config)


def config_first(arguments: list[str]) -> list[str]:
    """Move `--config FILE` to where it belongs, before the command."""
    first: list[str] = []
    rest = list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    for place in range(end - 1, -1, -1):
        if rest[place].startswith("--config="):
            first[:0] = [rest.pop(place)]
        elif rest[place] == "--config" and place + 1 < end:
            first[:0] = [rest.pop(place), rest.pop(place)]
    return first + rest


def asks_for_json(arguments: list[str]) -> bool:
    """Whether `--json` is among the options; anything after `--` is not an option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return "--json" in arguments[:end]


def main() -> None:
    """Run the command line and end the process with its exit code.

    An error is two lines on stderr, or one line of JSON with `--json`. Exit codes: 1 for
    any `EmberdError`, 2 for a command line that cannot be understood, 130 after Ctrl-C; commands
    may add their own.
    """
    _open_what_is_closed()
    arguments = config_first(sys.argv[1:])
    context.errors_as_json = asks_for_json(arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except (KeyboardInterrupt, RuntimeError) as error:
        if not is_interrupt(error):
            raise
        code = INTERRUPTED_EXIT
    except OSError as error:
        if not _has_folder():
            print_problem(
                "usage",
                "The current folder was deleted, so no relative path can work.",
                "Change to a folder that exists (`cd ~`), or use absolute paths.",
            )
            sys.exit(USAGE_EXIT)
        if error.filename is not None or error.errno not in UNWRITABLE:
            raise
        code = _explain_output(error)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command, print what failed, and return the exit code."""
    try:
        if "--install-completion" in arguments:
            _require_home()
        code: int | None = app(arguments, prog_name="emberd", standalone_mode=False)
    except EmberdError as error:
        print_error(error)
        return 1
    except USAGE as error:
        return _explain_usage(error)
    except typer.Abort:
        print_problem("aborted", "Nothing was changed, because you did not answer yes.")
        return 1
    return code or 0


def _require_home() -> None:
    """Raise ConfigError if there is no home folder, where shells keep their settings."""
    try:
        home_folder()
    except ConfigError as error:
        raise ConfigError(
            error.message, hint="Set HOME to the folder where your shell keeps its settings."
        ) from None


def _explain_usage(error: Exception) -> int:
    """Print what was wrong with the command line, and where to read more."""
    if type(error).__name__ == "NoArgsIsHelpError":  # only a group's name: print its help
        typer.echo(str(error))
        return USAGE_EXIT
    met: typer.Context | None = getattr(error, "ctx", None)
    said: str = getattr(error, "format_message", error.__str__)()
    print_problem("usage", said, f"See `{met.command_path if met else 'emberd'} --help`.")
    return USAGE_EXIT


def _explain_output(error: OSError) -> int:
    """Print why stdout cannot be written, unless its reader closed the pipe on purpose."""
    with suppress(OSError):  # the rest of its buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno != errno.EPIPE:
        print_problem(
            "output", f"The output cannot be written: {error.strerror}.",
            "Free some space there, then run the command again.",
        )  # fmt: skip
    return 1


def _has_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _open_what_is_closed() -> None:
    """Open the null device in place of a closed stdin, stdout or stderr.

    Otherwise the next file to be opened gets that descriptor, and output ends up in it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115, PTH123 - as long as we run


if __name__ == "__main__":
    main()
