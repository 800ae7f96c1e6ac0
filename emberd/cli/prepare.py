"""`emberd prepare`, and its part in `pull` and `serve`: compiling before the first request."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from emberd.cli.context import AsJson, Root, complete_model, print_warning
from emberd.errors import ConfigError, EmberdError

if TYPE_CHECKING:
    from emberd.config.load import Config
    from emberd.pool.preparing import Prepared
    from emberd.registry.spec import ModelSpec


def prepare(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Names or aliases; the default and pinned models if left out.",
            autocompletion=complete_model,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compile models ahead of their first request.

    `emberd pull` does this too, and a running server does it after a change of the config file.
    Nothing is downloaded: naming a model that is not on this machine is an error, and without
    names, such a model is left for its first request.
    """
    from emberd.models.availability import find_here, require_here
    from emberd.spaces.lock import LockFile

    root: Root = ctx.obj
    config = root.load()
    lock = LockFile(config.homes.state).read()
    specs = list({spec.name: spec for spec in map(config.catalog.get, names or [])}.values())
    for spec in specs:
        require_here(spec, config.homes.hub, lock.get(spec.name))
    rows: list[dict[str, Any]] = []
    for spec in specs or default_and_pinned(config):
        here = find_here(spec, config.homes.hub, lock.get(spec.name))
        done = prepare_now(config, spec)
        rows.append(
            {
                "name": spec.name,
                "status": "prepared" if here else "not_here",
                "prepared_s": done and round(done.seconds, 3),
            }
        )
        if not as_json and not here:
            typer.echo(
                f"{spec.name}: not on this machine, so nothing was compiled. Its first request"
                f" downloads and compiles it, or now `emberd pull {spec.name}`."
            )
        elif not as_json and done:
            typer.echo(f"{spec.name}: {prepared_in(done.seconds)}")
    if as_json:
        typer.echo(json.dumps({"models": rows}))


def default_and_pinned(config: "Config") -> "list[ModelSpec]":
    """Return the default model and those that are always loaded."""
    default = config.catalog.get(config.settings.default)
    return [default, *(spec for spec in config.catalog if spec.pinned and spec is not default)]


def prepare_now(config: "Config", spec: "ModelSpec", *, unasked: bool = False) -> "Prepared | None":
    """Prepare a model if it is here and that has not been done. Raises EmberdError.

    `unasked`: nor tried in vain.
    """
    import asyncio

    from emberd.models.prepared import in_hand
    from emberd.pool import preparing

    homes = config.homes
    if not preparing.needs_preparing(spec, homes, unasked=unasked):
        return None
    try:
        with in_hand(homes.state, preparing.LONGEST_S):
            if not preparing.needs_preparing(spec, homes, unasked=unasked):
                return None  # a server has done it, or it was removed
            return asyncio.run(preparing.prepare(spec, homes))
    except OSError as error:
        raise ConfigError(
            f"{spec.name} could not be prepared: {error.strerror or type(error).__name__}.",
            hint=f"Check that {config.homes.state} can be written, and this user's limits.",
        ) from None


def try_to_prepare(
    config: "Config", spec: "ModelSpec", *, unasked: bool = False
) -> "Prepared | None":
    """Do it as part of something else, unless `limits.prepare` is off; a failure is a warning."""
    if not config.settings.limits.prepare:
        return None
    try:
        return prepare_now(config, spec, unasked=unasked)
    except EmberdError as error:
        said = f"{error.message} {error.hint or ''}".strip()
        print_warning(f"{spec.name} was not compiled before its first request: {said}")
        return None


def prepare_usual(config: "Config") -> None:
    """Prepare what a server that is about to start is most likely to be asked for first."""
    for spec in default_and_pinned(config):
        try_to_prepare(config, spec, unasked=True)


def prepared_in(seconds: float) -> str:
    """Say what preparing a model took."""
    return f"prepared for this machine in {seconds:.1f} s"
