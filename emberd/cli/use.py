"""`emberd use NAME`: make a model the default, after telling what that means for stored vectors."""

import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from emberd.cli.context import AsJson, Root, complete_model, require_file, resumable
from emberd.errors import ConfigError, EmberdError, RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from emberd.client.clients import Client
    from emberd.config.edit import Edit
    from emberd.config.load import Config
    from emberd.registry.spec import ModelSpec
    from emberd.spaces.lock import LockEntry
    from emberd.spaces.options import SpaceOptions


@dataclass(frozen=True, slots=True)
class Space:
    """Whether two models give vectors that may be compared, and how that is known."""

    verdict: Literal["same", "another", "unknown"]
    why: str


@dataclass(frozen=True, slots=True)
class Switch:
    """The write and the reload: one step, and its way back.

    Whoever has to do more in the same step (a migration of stores) does it before `commit`, and
    calls `rollback` when something after it fails.
    """

    edit: "Edit"
    server: "Client | None"
    name: str

    def commit(self) -> None:
        """Write the file and wait until the running server uses the model; else take it back.

        Raises:
            ConfigError: the file changed meanwhile or cannot be written.
            EmberdError: the server does not take it; the file is as it was.
        """
        written = False
        try:
            self.edit.commit()
            written = True
            if self.server is None:
                return
            self._have_taken(self.server)
        except BaseException as error:  # an interrupt, too
            if self.edit.is_in_force():
                self.edit.rollback()
                if self.server is not None:
                    with suppress(EmberdError):  # it may be what failed; it watches the file, too
                        _reload(self.server)
            elif written and isinstance(error, EmberdError):
                raise ConfigError(
                    f"{error.message} {self.edit.file} was edited meanwhile, so it is left alone:"
                    f" its default may be {self.name} by now.",
                    hint="Correct it, with the default that you want, and run this again.",
                ) from None
            raise

    def _have_taken(self, server: "Client") -> None:
        default = _reload(server)["default"]
        if default["name"] != self.name:
            raise ConfigError(
                f"The server at {server.address} goes on with {default['name']}, which"
                f" {default['origin']} says."
            )

    def rollback(self) -> None:
        """Restore the exact bytes of before, and have the server take them; also when never done.

        Raises:
            ConfigError: somebody has edited the file since; it is left alone.
        """
        self.edit.rollback()
        if self.server is not None:
            _reload(self.server)


def _reload(server: "Client") -> dict[str, Any]:
    from emberd.client import requests

    return server.send(requests.reload())


def use(
    ctx: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Name or alias, as `emberd list` shows it.",
            autocompletion=complete_model,
        ),
    ],
    migrate: Annotated[
        bool,
        typer.Option(
            "--migrate",
            help="Also embed again the stores that follow the default: all changes, or nothing.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to the question.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would mean; write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model the default, for requests that name none.

    Changes `default:` in the config file; a running server takes it at once. Vectors of different
    models do not compare: what was stored with the old one has to be embedded again.
    """
    from emberd.client import clients
    from emberd.config.edit import Edit

    root: Root = ctx.obj
    config = root.load()
    recovered, unread = _recover(config, strict=migrate)
    if recovered:
        config = root.load()  # the default may be another one again
    spec = config.catalog.get(name)
    before = config.catalog.get(config.settings.default)
    server = clients.find(config)
    served = _require_effect(config, server)
    report = _report(config, before, spec, server, unread, migrates=migrate)
    report["recovered"] = recovered
    if migrate:
        report["note"] = _note_of_followers(config, dry_run=dry_run)
    if not as_json:
        for sentence in recovered:
            typer.echo(sentence)
    is_default = before is spec and served in (None, spec.name)
    if is_default and not (migrate and config.settings.stores):
        _tell({**report, "status": "unchanged"}, as_json=as_json)
        return
    edit = Edit.of_default(config.homes.config, spec.name)
    switch = Switch(edit, server, spec.name)
    if migrate:
        _use_and_migrate(config, report, switch, yes=yes, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        _tell({**report, "status": "planned"}, as_json=as_json)
        return
    if not as_json:
        _tell({**report, "status": "planned"}, as_json=False)
    _require_consent(report, yes=yes, as_json=as_json)
    switch.commit()
    _tell({**report, "status": "changed"}, as_json=as_json)


def _recover(config: "Config", *, strict: bool) -> tuple[list[str], dict[str, str]]:
    """Finish or take back what a stopped `use --migrate` left.

    Returns what was done, in words, and what is wrong with stores that cannot be read, by name.

    Raises:
        StoreError: `strict`, and one cannot be read.
    """
    if not config.settings.stores:
        return [], {}
    from emberd.client import clients
    from emberd.errors import StoreError
    from emberd.migrate import known, run

    done, unread = [], {}
    for name in known.followers(config):
        try:
            said = run.recover(known.find(config, name), config.homes.state)
        except StoreError as error:
            if strict:
                with known.naming(name):
                    raise
            unread[name] = error.message
            continue
        if said:
            done.append(said)
    server = clients.find(config) if done else None
    if server is not None:
        _reload(server)
    return done, unread


def _note_of_followers(config: "Config", *, dry_run: bool) -> str | None:
    """Say that `--migrate` has nothing to do, where it has nothing; None else."""
    from emberd.migrate import known

    if known.followers(config):
        return None
    embedded = "nothing would be embedded" if dry_run else "nothing was embedded"
    return (
        f"No configured store follows the default: {embedded}. To have stores move along, name"
        f" them below `stores:` in {config.homes.config}, without a `model:` of their own."
    )


def _use_and_migrate(
    config: "Config",
    report: dict[str, Any],
    switch: Switch,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Stage every store that the default serves; then stores, settings and default change at once.

    Raises:
        EmberdError: whatever failed; everything is as it was.
    """
    from dataclasses import replace

    from emberd.cli import migrate as said
    from emberd.migrate import embedding, known, run

    state = config.homes.state
    followers = known.served_by_default(config)
    run.require_apart(followers)
    with resumable(), said.embedder_of(config) as embedder:
        target = embedding.find_target(config, embedder, switch.name)
        plans = []
        for named in followers:
            with known.naming(named.name):
                asked = replace(target, input_type=named.input_type)
                if not dry_run:
                    run.complete(named, asked, embedder, state)
                plans.append(run.plan(named, asked, embedder, state))
        moving = [(n, plan) for n, plan in zip(followers, plans, strict=True) if not plan.there]
        if not moving and switch.edit.after == switch.edit.before:
            for named, plan in zip(followers, plans, strict=True):
                said.note_there(config, named, plan)
            _tell({**report, "stores": [], "status": "unchanged"}, as_json=as_json)
            return
        report = {**report, "plans": [said.plan_row(named, plan) for named, plan in moving]}
        if not as_json or dry_run:
            _tell({**report, "status": "planned"}, as_json=as_json)
        if not as_json:
            for named, plan in moving:
                typer.echo(said.plan_sentences(named, plan))
        if dry_run:
            if report["note"] and not as_json:
                typer.echo(report["note"])
            return
        _require_consent(report, yes=yes, as_json=as_json)

        with said.bars_of(quiet=as_json) as bar:
            moved = run.migrate_all(
                [named for named, _ in moving], target, embedder, state, along=switch, report=bar
            )
    for named, plan in zip(followers, plans, strict=True):
        if plan.there:
            said.note_there(config, named, plan)
    _tell(
        {**report, "status": "changed", "moved": {n: asdict(one) for n, one in moved.items()}},
        as_json=as_json,
    )
    if not as_json:
        for named, _ in moving:
            typer.echo(said.moved_sentences(named, moved[named.name], target.model, target.model))


def compare_spaces(config: "Config", one: "ModelSpec", other: "ModelSpec") -> Space:
    """Compare two entries by what the lock knows of them; no model is loaded."""
    from emberd.models.availability import find_here
    from emberd.spaces.lock import LockFile
    from emberd.worker.identity import compare

    if one.name == other.name:
        return Space("same", "it is the same model")
    if one.dimensions != other.dimensions:
        return Space("another", f"{one.dimensions} and {other.dimensions} dimensions")
    entries = LockFile(config.homes.state).read()
    a, b = entries.get(one.name), entries.get(other.name)
    unknown = [
        spec
        for spec, entry in ((one, a), (other, b))
        if entry is None or not entry.now.options.max_tokens
    ]
    if a is None or b is None or unknown:
        why = [
            f"{spec.name} was never loaded here"
            if find_here(spec, config.homes.hub, entries.get(spec.name))
            else f"the files of {spec.name} are not here"
            for spec in unknown
        ]
        return Space("unknown", " and ".join(why))
    differences = _options(one, a).differences(_options(other, b), whose=(one.name, other.name))
    if differences:
        return Space("another", "; ".join(differences))
    if _fingerprints(one, a) & _fingerprints(other, b):
        return Space("same", f"fingerprint {_fingerprint(other, b)}")
    stale = [
        f"{spec.name} was changed since it was loaded here"
        for spec, entry in ((one, a), (other, b))
        if _fingerprint(spec, entry) not in entry.now.fingerprints.values()
    ]
    if stale:
        return Space("unknown", " and ".join(stale))
    likeness = compare(a.now, b.now)
    if likeness.cosine is None:
        return Space("another", f"fingerprints {_fingerprint(one, a)} and {_fingerprint(other, b)}")
    return Space("same" if likeness.is_same else "another", likeness.why)


def stores_that_leave(
    config: "Config", spec: "ModelSpec", unread: "Mapping[str, str]"
) -> list[dict[str, Any]]:
    """Return the stores that the default serves and whose vectors may not be of `spec`'s space.

    Each is `{"name", "path", "verdict", "why"}`: `re-embed`, or `unknown` where nothing is noted
    or the store cannot be read, as those in `unread`; `why` says what is wrong with it.
    """
    if not config.settings.stores:
        return []
    from emberd.errors import StoreError
    from emberd.migrate import check, known
    from emberd.spaces.lock import LockFile
    from emberd.spaces.stores import fits

    entry = LockFile(config.homes.state).read().get(spec.name)
    leaving = []

    def add(name: str, path: "Path", verdict: str, why: str | None = None) -> None:
        leaving.append({"name": name, "path": str(path), "verdict": verdict, "why": why})

    for name in known.followers(config):
        wrong = unread.get(name)
        if wrong is None:
            try:
                named = known.find(config, name)
                noted = check.whose(config, named)
            except StoreError as error:
                wrong = error.message
        if wrong is not None:
            add(name, known.path_of(config, name), "unknown", f"cannot be read: {wrong}")
        elif noted is None:
            add(name, named.store.path, "unknown")
        elif not fits(noted.fingerprint, noted.model, spec.name, entry):
            add(name, named.store.path, "re-embed")
    return leaving


def _fingerprint(spec: "ModelSpec", entry: "LockEntry") -> str:
    """Return the fingerprint that the entry has as the registry has it today."""
    from emberd.spaces.fingerprint import fingerprint

    files, options = entry.now.files, _options(spec, entry)
    return fingerprint(spec, files=files, options=options, dimensions=spec.dimensions)


def _options(spec: "ModelSpec", entry: "LockEntry") -> "SpaceOptions":
    """Return the options that a model has as registry and folder have it today."""
    from pathlib import Path

    from emberd.errors import ModelLoadError
    from emberd.worker.loading import options_of

    try:
        return options_of(spec, Path(entry.now.folder))
    except ModelLoadError:  # its files are gone, or contradict the entry
        return entry.now.options


def _fingerprints(spec: "ModelSpec", entry: "LockEntry") -> set[str]:
    found = _fingerprint(spec, entry)
    return {found, *entry.equivalent} if found == entry.fingerprint else {found}


def _require_effect(config: "Config", server: "Client | None") -> str | None:
    """Return the default that the server uses. Raises ConfigError when the edit would be void."""
    from emberd.client import requests

    origin = config.origins["default"]
    if origin.startswith("$"):
        raise ConfigError(
            f"{origin} says {config.settings.default}, and beats the config file.",
            hint=f"Unset {origin[1:]}, or change it.",
        )
    if server is None:
        return None
    answer = server.send(requests.preview_reload())
    default = answer["default"]
    require_file(server, answer["file"], config.homes.config)
    if default["origin"].startswith(("$", "--")):
        raise ConfigError(
            f"The server at {server.address} was started with {default['origin']} for"
            f" {default['name']}, which beats the config file.",
            hint=f"Start it without {default['origin'].lstrip('$')}, then run this again.",
        )
    return str(default["name"])


def _report(
    config: "Config",
    before: "ModelSpec",
    spec: "ModelSpec",
    server: "Client | None",
    unread: "Mapping[str, str]",
    *,
    migrates: bool,
) -> dict[str, Any]:
    """Return what the change means and what to run beside it."""
    from emberd.models.availability import find_here
    from emberd.spaces.lock import LockFile

    space = compare_spaces(config, before, spec)
    stores = stores_that_leave(config, spec, unread)
    if space.verdict == "same" and not migrates:
        stores = [store for store in stores if store["verdict"] != "unknown" or store["why"]]
    here = find_here(spec, config.homes.hub, LockFile(config.homes.state).read().get(spec.name))
    run = [] if here else [f"emberd pull {spec.name}"]
    if not migrates and any(not store["why"] for store in stores):
        run += [f"emberd use {spec.name} --migrate"]
    return {
        "file": str(config.homes.config),
        "before": before.name,
        "name": spec.name,
        "dimensions": [before.dimensions, spec.dimensions],
        "space": asdict(space),
        "stores": stores,
        "is_here": here is not None,
        "run": run,
        "server": server.address if server else None,
    }


def _require_consent(report: dict[str, Any], *, yes: bool, as_json: bool) -> None:
    """Ask at a terminal; elsewhere only a change to the same space goes without `--yes`."""
    if yes:
        return
    if sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        typer.confirm(f"Write it into {report['file']}?", abort=True)
    elif report["space"]["verdict"] != "same" or report.get("plans"):
        raise RequestError(
            f"{report['name']} gives vectors of another space than {report['before']}, or may.",
            hint="Add --yes when that is meant; --dry-run says what it means.",
        )


def _tell(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report))
        return
    name, before, status = report["name"], report["before"], report["status"]
    if status == "unchanged":
        typer.echo(f"{name} is the default already.")
        for sentence in [*_of_stores(report), *_to_run(report)]:
            typer.echo(sentence)
    elif status == "changed":
        where = f"the server at {report['server']} uses it from the next request"
        typer.echo(f"{name} is the default now: {where if report['server'] else 'no server runs'}.")
        if not report["is_here"]:
            typer.echo(
                f"Its files are not here: run `emberd pull {name}` now. Until then requests wait"
                " for the download, and fail where the Hub cannot be reached."
            )
    else:
        typer.echo(f"default: {before} -> {name}, in {report['file']}")
        for sentence in _sentences(report):
            typer.echo(sentence)
    if status != "planned" and report.get("note"):
        typer.echo(report["note"])


def _sentences(report: dict[str, Any]) -> list[str]:
    """Say what the change means, for people."""
    name, before, space = report["name"], report["before"], report["space"]
    meaning = {
        "same": f"The same space ({space['why']}): what {before} has embedded stays comparable.",
        "another": f"Another space ({space['why']}): vectors that {before} made must not be"
        f" compared with those of {name}.",
        "unknown": f"It is not known whether the space stays the same: {space['why']}."
        f" `emberd pull {name}` and one request to each would tell.",
    }
    lines = [meaning[space["verdict"]]]
    if "plans" not in report:
        lines += _of_stores(report)
    return lines + _to_run(report)


def _of_stores(report: dict[str, Any]) -> list[str]:
    """Say which stores do not match, or may not."""
    is_default = report["status"] == "unchanged"
    lines = []
    for store in report["stores"]:
        called = f"The store {store['name']} ({store['path']})"
        if store["why"]:
            lines.append(f"{called} {store['why']} Whether it matches is not known.")
        elif is_default:
            lines.append(f"{called} does not match it.")
        else:
            may = "would" if store["verdict"] == "re-embed" else "may"
            lines.append(f"{called} {may} no longer match.")
    return lines


def _to_run(report: dict[str, Any]) -> list[str]:
    commands = "; ".join(f"`{command}`" for command in report["run"])
    return [f"To run: {commands}"] if commands else []
