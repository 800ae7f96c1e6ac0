"""`/map`: a configured store in two dimensions, for the page and others.

`POST /map` has a process of its own read the store (`map_process`), and the other routes ask it.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.byte_budget import reservation_of
from emberd.api.fields import RequestBody
from emberd.api.hang_up import hang_up_of
from emberd.api.map_process import Given, MapProcess, Maps
from emberd.api.openapi import (
    ACCESS,
    EMBEDDING,
    NativeError,
    ResponseBody,
    fails,
    gives,
    takes,
)
from emberd.api.routes import Router
from emberd.config.live import LiveConfig
from emberd.dtypes import Dtype
from emberd.errors import BadOptionError
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface

LOOK_S = 0.5  # so long `POST /map` waits for a store to be read
MOST_TEXTS = 1000
MOST_NEAREST = 1000
MOST_SAMPLED = 20_000
BYTES = "application/octet-stream"
READING = (*ACCESS, 400, 404, 409, 429, 500, 503)
ASKING = (*READING, 413, 415, 422)


class MapBody(RequestBody):
    """What `POST /map` takes."""

    store: str = Field(description="A name under `stores:` in the config file.")
    again: bool = Field(False, description="Read the store anew, as it may have changed.")


class MapCheckBody(RequestBody):
    """What `POST /map/check` takes."""

    store: str


class MapTextsBody(RequestBody):
    """What `POST /map/texts` takes."""

    store: str
    rows: Annotated[list[int], Field(max_length=MOST_TEXTS)] = Field(
        description="Numbers of rows, from 0 on, in the order of the points."
    )


class MapSearchBody(RequestBody):
    """What `POST /map/search` takes."""

    store: str
    text: str = Field(description="It is embedded as a query, by the model of the store's users.")
    count: int = Field(50, ge=1, le=MOST_NEAREST, description="How many rows to return.")


class MapProgress(ResponseBody):
    """How far the reading is; `total` is 0 where that cannot be said."""

    what: str
    done: int
    total: int


class MapChecking(ResponseBody):
    """How far the check is, in models; `model` embeds now."""

    model: str | None
    done: int
    total: int


class MapGroup(ResponseBody):
    """Rows of one model, null for none on this machine; `checked` of them were embedded again."""

    model: str | None
    checked: int
    points: int


class MapState(ResponseBody):
    """What `POST /map` answers. All counts are 0 until `state` is `ready`.

    `points` of the store's `rows` are on the map; if `sampled`, they are an evenly spread sample.
    The vectors of `unusable` rows are zero, not finite, or of another size. `stamp` is the model
    that a migration noted inside the store. `agreement` is the share of checked rows whose nearest
    other one is of the same group: if it is at least 0.99, rows that were not checked have the
    group of the nearest one that was.
    """

    map: str = Field(description="Another one after the store was read anew.")
    store: str
    state: Literal["reading", "ready"]
    progress: MapProgress | None
    rows: int = 0
    points: int = 0
    sampled: bool = False
    unusable: int = 0
    dimensions: int = 0
    dtype: Dtype = "float"
    stamp: str | None = None
    shares: list[float] = Field([], description="Of the variance: what x and y have of it.")
    candidates: list[str] = Field([], description="Models here whose vectors have that size.")
    checkable: int = Field(0, description="Rows that a check embeds again.")
    groups: list[MapGroup] = Field([], description="Empty before a check.")
    agreement: float | None = None
    check: MapChecking | None = None
    check_error: dict[str, Any] | None = Field(None, description="What stopped the last check.")


class MapRow(ResponseBody):
    """A row: its number, its key in the store, and at most 300 characters of its text."""

    row: int
    key: int | str
    text: str


class MapTexts(ResponseBody):
    """What `POST /map/texts` answers."""

    map: str
    rows: list[MapRow]


class MapHit(MapRow):
    """A row, and its cosine with the text that was searched."""

    cosine: float


class MapHits(ResponseBody):
    """What `POST /map/search` answers, nearest first."""

    map: str
    model: str
    fingerprint: str
    rows: list[MapHit]


def _binary(what: str) -> dict[int | str, dict[str, Any]]:
    headers = {
        name: {"description": meaning, "schema": {"type": "string"}}
        for name, meaning in {
            "X-Emberd-Map": "The map, as in `POST /map`.",
            "X-Emberd-Rows": "How many rows there are.",
        }.items()
    }
    content = {BYTES: {"schema": {"type": "string"}}}
    return {200: {"description": what, "content": content, "headers": headers}}


def _parameter(name: str, schema: dict[str, Any], what: str, *, required: bool) -> dict[str, Any]:
    return {
        "name": name, "in": "query", "required": required, "description": what, "schema": schema,
    }  # fmt: skip


STORE = _parameter("store", {"type": "string"}, "Of which map.", required=True)
ROWS = _parameter(
    "rows", {"type": "integer", "minimum": 1, "maximum": MOST_SAMPLED},
    "How many rows, evenly spread; by default the most.", required=False,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to a map that is held while it is answered."""

    held: MapProcess
    request: Request

    async def give(self, what: bytes) -> Given:
        """Ask, until the client hangs up. Raises QueueFullError if there is no room for that."""
        about, raw = await hang_up_of(self.request.scope).ends(self.held.ask(what))
        reservation_of(self.request.scope).resize(len(raw))
        return about, raw

    async def bytes(self, what: bytes) -> Response:
        """Answer with the bytes that the map gives."""
        about, raw = await self.give(what)
        headers = {"X-Emberd-Map": self.held.state["map"], "Cache-Control": "no-store"}
        headers |= {f"X-Emberd-{key.title()}": str(value) for key, value in about.items()}
        return Response(raw, 200, headers, BYTES)


def create_router(pool: PoolSurface, live: LiveConfig, maps: Maps) -> Router:
    """Return the routes over the maps that are held; texts to search are embedded by `pool`."""
    router = Router()

    async def give(request: Request, what: bytes) -> Response:
        held = maps.held(_store(request))
        async with held.used():
            return await _Asked(held, request).bytes(what)

    @router.post(
        "/map",
        openapi_extra=takes(MapBody, {"store": "notes"}),
        responses=gives(MapState, "The map, or how far it is.") | fails(NativeError, ASKING),
    )
    async def open_map(request: Request) -> Response:
        """Read a store for a map, unless that is done; answers at once, or within half a second."""
        asked = await body.read(request, MapBody, pool.limits.max_body)
        held = maps.open(asked.store, again=asked.again)
        async with held.used():
            return answers.as_json(await hang_up_of(request.scope).ends(held.look(LOOK_S)))

    @router.post(
        "/map/check",
        openapi_extra=takes(MapCheckBody, {"store": "notes"}),
        responses=gives(MapState, "The check has begun.") | fails(NativeError, ASKING),
    )
    async def check(request: Request) -> Response:
        """Begin to embed some rows again, to find out which model made them.

        Every model on this machine whose vectors have the size of the store's embeds the same 500
        rows. One that was not loaded is unloaded afterwards.
        """
        asked = await body.read(request, MapCheckBody, pool.limits.max_body)
        held = maps.open(asked.store)
        async with held.used():
            await _Asked(held, request).give(b'"ask":"check"')
            return answers.as_json(held.state)

    @router.post(
        "/map/texts",
        openapi_extra=takes(MapTextsBody, {"store": "notes", "rows": [0, 1]}),
        responses=gives(MapTexts, "The rows, in that order.") | fails(NativeError, ASKING),
    )
    async def texts(request: Request) -> Response:
        """Return keys and the beginnings of the texts of some rows."""
        asked = await body.read(request, MapTextsBody, pool.limits.max_body)
        held = maps.open(asked.store)
        async with held.used():
            what = orjson.dumps({"ask": "texts", "rows": asked.rows})
            _, found = await _Asked(held, request).give(what[1:-1])
            return _json(found, {"map": held.state["map"]})

    @router.post(
        "/map/search",
        openapi_extra=takes(MapSearchBody, {"store": "notes", "text": "what is it about?"}),
        responses=gives(MapHits, "The nearest rows.") | fails(NativeError, EMBEDDING),
    )
    async def search(request: Request) -> Response:
        """Return the rows whose vectors have the highest cosines with that of a text."""
        asked = await body.read(request, MapSearchBody, pool.limits.max_body)
        held = maps.open(asked.store)
        async with held.used():
            await hang_up_of(request.scope).ends(held.ask(b'"ask":"texts","rows":[]'))
            settings = held.settings
            spec = pool.find(settings.model, settings.input_type, ("embed",)).spec
            size = held.state["dimensions"]
            wanted = EmbedRequest(
                texts=[asked.text],
                model=spec.name,
                input_type="query",
                dimensions=None if size == spec.dimensions else size,
                dtype=held.state["dtype"],
            )
            answer = await exchange.embed(request, pool, wanted)
            vector = answer.fragments[0]
            what = b'"ask":"nearest","count":%d,"vector":%b' % (asked.count, vector)
            _, found = await _Asked(held, request).give(what)
            said = {"model": answer.model, "fingerprint": answer.fingerprint}
            return _json(found, {"map": held.state["map"], **said})

    @router.get(
        "/map/points",
        response_class=Response,
        openapi_extra={"parameters": [STORE]},
        responses=_binary(
            "For N rows: x and y of each, 2 N float32; the group of each, N bytes, 0 for unknown or"
            " its place in `groups` plus 1; whether it was checked, N bytes. Little-endian."
        )
        | fails(NativeError, READING),
    )
    async def points(request: Request) -> Response:
        """Return where the rows of a map are, and who made them."""
        return await give(request, b'"ask":"points"')

    @router.get(
        "/map/components",
        response_class=Response,
        openapi_extra={"parameters": [STORE, ROWS]},
        responses=_binary(
            "For a sample of M rows: their numbers, M uint32; the first K components of each, M K"
            " float32. Little-endian. `X-Emberd-Components` has K, 50 at most."
        )
        | fails(NativeError, READING),
    )
    async def components(request: Request) -> Response:
        """Return more principal components of a sample of rows, to be projected further."""
        return await give(request, b'"ask":"components","rows":%d' % _rows(request))

    return router


def _json(rows: bytes, about: dict[str, Any]) -> Response:
    """Return the map's own JSON array beside what is said about it."""
    said = orjson.dumps(about)[:-1] + b',"rows":' + rows + b"}"
    return Response(said, media_type="application/json")


def _store(request: Request) -> str:
    if not (name := request.query_params.get("store")):
        raise BadOptionError(
            "store: it is missing.", hint="Add ?store=NAME to the address.", field="store"
        )
    return name


def _rows(request: Request) -> int:
    said = request.query_params.get("rows", str(MOST_SAMPLED))
    if not (said.isascii() and said.isdigit() and len(said) < 9 and 1 <= int(said) <= MOST_SAMPLED):
        raise BadOptionError(
            f"rows: it is not a number from 1 to {MOST_SAMPLED}.",
            hint="Ask for fewer, or leave it out.",
            field="rows",
        )
    return int(said)
