"""Routes for the page's jobs: what it starts by a button, and somebody else by a command.

Only stores under `stores:` can be named, so that no page can have the server open any other file.
"""

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body
from emberd.api.commands import Job, JobKind, Jobs
from emberd.api.fields import RequestBody
from emberd.api.openapi import ACCESS, NativeError, ResponseBody, fails, gives, takes
from emberd.api.routes import Router
from emberd.config.live import LiveConfig
from emberd.errors import BadOptionError

OF_A_MODEL = ("pull", "verify")


class JobBody(RequestBody):
    """What `POST /jobs` takes: `model` for pull and verify, `store` for the others."""

    model_config = ConfigDict(extra="forbid")

    kind: JobKind
    model: str | None = None
    store: str | None = Field(None, description="A name under `stores:` in the config file.")
    to: str | None = Field(
        None,
        description="For plan and migrate: the new model; by default what the store's users get.",
    )


class StopBody(RequestBody):
    """What `POST /jobs/stop` takes."""

    model_config = ConfigDict(extra="forbid")

    id: str


class JobRows(ResponseBody):
    """What `GET /jobs` answers."""

    jobs: list[Job]


class Stopping(ResponseBody):
    """What `POST /jobs/stop` answers: the jobs that were running, and end now."""

    stopping: list[str]


def create_router(jobs: Jobs, live: LiveConfig) -> Router:
    """Return the routes."""
    router = Router()
    failures = fails(NativeError, (*ACCESS, 400, 404, 409, 413, 415, 422, 429, 500, 503))
    failures[400]["description"] = "Broken JSON, an unknown kind, or no such store."
    failures[409]["description"] = "The same command is running already."
    failures[429]["description"] = "Too many commands are running already."
    failures[500]["description"] = "No process can be started."
    failures[503]["description"] = "The server is shutting down."

    @router.get("/jobs", responses=gives(JobRows, "The last jobs.") | fails(NativeError, ACCESS))
    async def rows() -> Response:
        """Return the last 50 jobs, newest first."""
        return answers.as_json({"jobs": jobs.rows()})

    @router.post(
        "/jobs",
        openapi_extra=takes(JobBody, {"kind": "verify", "model": "minilm"}),
        responses=gives(Job, "It has started; `/events` and `/jobs` say how far it is.") | failures,
    )
    async def begin(request: Request) -> Response:
        """Start a command: pull or verify a model; check, plan, migrate or undo a store.

        It is `emberd KIND NAME` as a child process of the server; `plan` is `migrate run --dry-run`
        and `migrate` is `migrate run --yes`. It goes on when the client hangs up.
        """
        asked = await body.read(request, JobBody, most_bytes(live))
        subject = _subject(asked, live)
        to = asked.to and live.config.catalog.get(asked.to).name
        if to and asked.kind not in ("plan", "migrate"):
            problem = f"to: {asked.kind} leads to no other model."
            raise BadOptionError(problem, hint="Leave it out.", field="to")
        return answers.as_json(await jobs.begin(live.config, asked.kind, subject, to))

    @router.post(
        "/jobs/stop",
        openapi_extra=takes(StopBody, {"id": "0123456789abcdef"}),
        responses=gives(Stopping, "They have been asked to end.")
        | fails(NativeError, (*ACCESS, 400, 413, 415, 422, 429)),
    )
    async def stop(request: Request) -> Response:
        """Ask a job to end, as Ctrl-C does; one that was asked before is ended at once.

        A pull or a migration that was stopped continues where it was when it is started again.
        """
        asked = await body.read(request, StopBody, most_bytes(live))
        return answers.as_json({"stopping": [asked.id] if jobs.stop(asked.id) else []})

    return router


def most_bytes(live: LiveConfig) -> int:
    """Return how large a body may be."""
    return live.config.settings.limits.max_body


def _subject(asked: JobBody, live: LiveConfig) -> str:
    """Return the model or store that a job is about.

    Raises:
        BadOptionError: it is missing, or there is no such store.
        UnknownModelError: there is no such model.
    """
    key, other = ("model", "store") if asked.kind in OF_A_MODEL else ("store", "model")
    named: str | None = getattr(asked, key)
    if named is None or getattr(asked, other) is not None:
        raise BadOptionError(
            f"{key}: {asked.kind} is about one {key}, and nothing else.",
            hint=f"Send `{key}`, and no `{other}`.",
            field=key,
        )
    if key == "model":
        return live.config.catalog.get(named).name
    stores = live.config.settings.stores
    if named not in stores:
        known = f"These are: {', '.join(stores)}." if stores else "There are none."
        raise BadOptionError(
            f"There is no store {named[:100]!r} under `stores:` in {live.config.homes.config}.",
            hint=known,
            field="store",
        )
    return named
