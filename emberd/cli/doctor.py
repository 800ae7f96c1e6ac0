"""`emberd doctor`: what keeps emberd from working on this machine, and what to do about it."""

import json
from dataclasses import asdict

import typer

from emberd.cli.context import AsJson, Root


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Find out what keeps emberd from working on this machine.

    Changes nothing and loads no model. Exit code 1: a check failed.
    """
    from emberd.doctor.checks import checks
    from emberd.doctor.examine import examine

    root: Root = ctx.obj
    findings = examine(checks(root.config_file))
    passes = not any(finding.verdict == "failed" for finding in findings)
    rows = [asdict(finding) for finding in findings]
    if as_json:
        typer.echo(json.dumps({"ok": passes, "checks": rows}))
    else:
        from emberd.cli import render

        render.show(render.doctor_table(rows))
        for finding in findings:
            if finding.advice and finding.verdict in ("failed", "warning"):
                typer.echo(f"{finding.check}: {finding.advice}")
    if not passes:
        raise typer.Exit(1)
