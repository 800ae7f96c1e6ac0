"""`emberd doctor`: what on this machine keeps emberd from working, and what to do about it."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from emberd.cli.context import AsJson, Root
from emberd.files import is_gone

if TYPE_CHECKING:
    from emberd.doctor.run import Check
    from emberd.verify.finding import Finding


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Find out what on this machine keeps emberd from working.

    Changes nothing and loads no model. Exit code 1: a check failed.
    """
    from emberd.doctor.run import examine

    found = examine(_checks(ctx.obj))
    passes = not any(finding.verdict == "failed" for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": passes, "checks": [asdict(finding) for finding in found]}))
    else:
        from emberd.cli import render

        render.show(render.doctor_table([asdict(finding) for finding in found]))
        for finding in found:
            if finding.advice and finding.verdict in ("failed", "warning"):
                typer.echo(f"{finding.check}: {finding.advice}")
    if not passes:
        raise typer.Exit(1)


def _checks(root: Root) -> "dict[str, Check]":
    from emberd.config.load import load_config
    from emberd.config.paths import expand, find_homes
    from emberd.config.settings import LimitsSettings
    from emberd.doctor import backends, files, machine, network, service
    from emberd.errors import ConfigError
    from emberd.verify.finding import Finding

    homes = find_homes(config=root.config_file)
    alone: dict[str, Check] = {
        "python": machine.python,
        "platform": machine.system,
        "folders": lambda: machine.folders(homes),
        "disk": lambda: machine.disk(homes),
        "lock": lambda: files.lock(homes.state),
        "service": service.service,
    }
    try:
        config = load_config(config=root.config_file)
    except ConfigError as error:
        broken = Finding("config", "failed", error.message, error.hint or "")
        unread = "the configuration cannot be read"
        return {
            "config": lambda: [broken],
            **alone,
            "memory": lambda: machine.memory(LimitsSettings()),
            "backends": lambda: backends.check(None, None),
            **{
                name: lambda name=name: [Finding(name, "skipped", unread)]  # type: ignore[misc]
                for name in ("model", "port", "tokens", "hub")
            },
        }

    def found_in_config() -> "list[Finding]":
        there = " (no such file: all defaults)" if is_gone(homes.config) else ""
        count = len(list(config.catalog))
        return [
            Finding("config", "ok", f"{homes.config}{there}, {count} models"),
            *(
                Finding("config", "warning", warning, "Correct its name or unset it.")
                for warning in config.warnings
            ),
        ]

    settings = config.settings.stores
    paths = {name: homes.config.parent / expand(store.path) for name, store in settings.items()}
    return {
        "config": found_in_config,
        **alone,
        "lock": lambda: files.lock(homes.state, config.catalog, hub=homes.hub),
        "memory": lambda: machine.memory(config.settings.limits),
        "backends": lambda: backends.check(config.catalog, config.settings.default),
        "model": lambda: files.model(config),
        "stores": lambda: files.stores(paths),
        "port": lambda: network.port(config.settings.server, homes.state),
        "socket": lambda: network.socket(config.settings.server),
        "tokens": lambda: network.tokens(config),
        "hub": lambda: network.hub(config),
    }
