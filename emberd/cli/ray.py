"""`emberd ray config | start | deploy`: a cluster that serves what this machine's config says."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from emberd.cli.context import Root

app = typer.Typer(no_args_is_help=True, help="Serve from several machines, with Ray (emberd[ray]).")

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def config(
    ctx: typer.Context,
    ingresses: Annotated[
        int, typer.Option(min=1, help="Replicas of the HTTP app, each best on its own node.")
    ] = 1,
    cpus: Annotated[float, typer.Option(min=0, help="Cores for each replica of a model.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs for each replica of a model.")] = 0,
) -> None:
    """Print a Serve config (YAML) with a deployment for each model.

    These are the models that this machine's config names.

    Save it, change how many replicas each may have, and deploy it: `emberd ray deploy FILE`.
    """
    import yaml

    from emberd.ray.document import serve_document

    root: Root = ctx.obj
    document = serve_document(root.load(), ingresses=ingresses, cpus=cpus, gpus=gpus)
    typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


@app.command(context_settings=PASSED_ON)
def start(
    ctx: typer.Context,
    haproxy: Annotated[
        bool, typer.Option("--haproxy", help="Requests come in through HAProxy: faster.")
    ] = False,
) -> None:
    """Start Ray on this machine, kept private, as `ray start` does.

    It asks a token, and its dashboard is on loopback.

    `emberd ray start --head` on the first machine, and on each other one
    `emberd ray start --address FIRST:6379`, once ~/.ray/auth_token is there, too. With --haproxy,
    give it to every node; the app then listens on all interfaces, so it takes a token.
    """
    _require_token(makes_one="--head" in ctx.args)
    private = ("--dashboard-host", "127.0.0.1", "--disable-usage-stats")
    _become("ray", "start", *private, *ctx.args, haproxy=haproxy)


@app.command()
def deploy(
    file: Annotated[Path, typer.Argument(help="What `emberd ray config` printed.")],
) -> None:
    """Serve what a file says, as `serve deploy` does.

    Requests in progress are answered.
    """
    _become("serve", "deploy", str(file))


def _require_token(*, makes_one: bool) -> None:
    """Pass if this user has the token that all nodes of a cluster share, or can make it."""
    import subprocess

    from emberd.config.environment import for_ray
    from emberd.errors import ConfigError

    environ = for_ray()
    if environ["RAY_AUTH_MODE"] != "token":  # as somebody has said
        return
    command = [_program("ray"), "get-auth-token", *(["--generate"] if makes_one else [])]
    done = subprocess.run(  # noqa: S603 - a fixed program
        command, env=environ, umask=0o077, capture_output=True, check=False
    )
    if done.returncode == 0:
        return
    if makes_one:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        hint = "Ray keeps it in ~/.ray/auth_token."
        raise ConfigError(f"The token of the cluster cannot be made: {said}", hint=hint)
    raise ConfigError(
        "This machine does not have the token of the cluster.",
        hint="Copy ~/.ray/auth_token from the first machine, with mode 600.",
    )


def _become(name: str, *arguments: str, haproxy: bool = False) -> None:
    from emberd.config.environment import for_ray

    program = _program(name)
    environ = for_ray(haproxy=haproxy)
    os.execve(program, [program, *arguments], environ)  # noqa: S606 - a fixed program


def _program(name: str) -> str:
    """Return the path of a program of Ray's. Raises BackendMissingError."""
    from emberd.errors import BackendMissingError
    from emberd.installing import pip

    program = Path(sys.executable).with_name(name)
    if not os.access(program, os.X_OK):
        raise BackendMissingError(
            "Ray is not installed.", hint=f"Run `{pip('install', 'emberd[ray]')}`."
        )
    return str(program)
