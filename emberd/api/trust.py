"""`GET /trust`: what is remembered of each model that was used here, and what has changed since.

All of it is in `lock.json`; nothing is loaded or hashed for it: that is for `verify`, as a job.
"""

from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers
from emberd.api.commands import Job, Jobs
from emberd.api.openapi import ACCESS, NativeError, ResponseBody, fails, gives
from emberd.api.routes import Router
from emberd.aside import aside
from emberd.config.live import LiveConfig
from emberd.config.load import Config
from emberd.registry.spec import Kind, ModelSpec
from emberd.spaces.lock import LockEntry, LockFile


class TrustedFile(ResponseBody):
    """A file of a model, as it was when it was last hashed."""

    name: str
    bytes: int
    sha256: str


class SpaceChange(ResponseBody):
    """A model gives other vectors than those that were accepted; `fingerprint` was accepted."""

    fingerprint: str | None
    reasons: str
    cosine: float | None
    advice: str


class TrustedModel(ResponseBody):
    """What a model is now. `backend` is null if it was downloaded, but never loaded.

    `options` are what shapes its space besides files, precision and pooling. `verified` is the last
    job that checked it, since the server started.
    """

    name: str
    kind: Kind
    fingerprint: str | None
    dimensions: int
    pooling: str
    precision: str
    source: str
    folder: str
    files: list[TrustedFile]
    options: dict[str, Any]
    backend: str | None
    compute: str | None
    engine: str | None
    changed: SpaceChange | None
    verified: Job | None


class Trust(ResponseBody):
    """What `GET /trust` answers."""

    models: list[TrustedModel]


MODEL = {
    "name": "model",
    "in": "query",
    "required": False,
    "description": "Only this model; without it, all that were used here.",
    "schema": {"type": "string"},
}


def create_router(jobs: Jobs, live: LiveConfig) -> Router:
    """Return the route."""
    router = Router()

    @router.get(
        "/trust",
        openapi_extra={"parameters": [MODEL]},
        responses=gives(Trust, "What is remembered.") | fails(NativeError, (*ACCESS, 404)),
    )
    async def trust(request: Request) -> Response:
        """Say what models that were used here are made of, and what has changed since."""
        config = live.config
        asked = request.query_params.get("model")
        specs = [config.catalog.get(asked)] if asked else [*config.catalog]
        entries = await aside(partial(_entries, config))
        verified = {job.subject: job for job in reversed(jobs.rows()) if job.kind == "verify"}
        rows = [
            {**_row(spec, entries[spec.name]), "verified": verified.get(spec.name)}
            for spec in specs
            if spec.name in entries
        ]
        return answers.as_json({"models": rows})

    return router


def _entries(config: Config) -> dict[str, LockEntry]:
    found = LockFile(config.homes.state).read()
    return {name: entry for name, entry in found.items() if not entry.is_removed}


def _row(spec: ModelSpec, entry: LockEntry) -> dict[str, Any]:
    now, changed = entry.now, None
    if entry.changed_to:
        changed = {
            "fingerprint": entry.fingerprint,
            "reasons": entry.reasons,
            "cosine": entry.cosine,
            "advice": entry.advice(spec.name),
        }
    return {
        "name": spec.name,
        "kind": spec.kind,
        "fingerprint": now.fingerprint,
        "dimensions": spec.dimensions,
        "pooling": spec.pooling,
        "precision": spec.precision,
        "source": now.source,
        "folder": now.folder,
        "files": [
            {"name": name, "bytes": file.size, "sha256": file.sha256}
            for name, file in sorted(now.files.items())
        ],
        "options": asdict(now.options),
        "backend": now.backend,
        "compute": now.compute,
        "engine": now.engine,
        "changed": changed,
    }
