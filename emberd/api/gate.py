"""What every request passes through: access checks, a request id, its log line and its metrics.

Pure ASGI, so that routes notice when a client hangs up.
"""

import logging
import secrets
import time
import traceback

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emberd.api import byte_budget
from emberd.api.access import Access
from emberd.api.activity import READY, Ended, in_ms
from emberd.api.changes import Changes
from emberd.api.errors import dialect_of, render
from emberd.api.metrics import Metrics
from emberd.api.paths import plain
from emberd.api.record import KEY, UNKNOWN, Record
from emberd.errors import EmberdError

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

log = logging.getLogger("emberd.api")


class Gate:
    """The outermost layer of the app. `instance` is unique to this run of the server."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        access: Access,
        metrics: Metrics,
        changes: Changes,
        budget: byte_budget.ByteBudget,
        instance: str,
    ) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics
        self._changes = changes
        self._budget = budget
        self._instance = instance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": plain(scope["path"])}
        request_id = secrets.token_hex(8)
        began_s = time.perf_counter()
        status = 0
        headers = Headers(scope=scope)
        record = scope[KEY] = Record()
        reservation = scope[byte_budget.KEY] = byte_budget.Reservation(self._budget)
        stamped = {"X-Request-Id": request_id, "X-Emberd-Instance": self._instance}

        async def stamp(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                written = MutableHeaders(scope=message)
                varies = written.get("vary")
                written.update(stamped | record.headers)
                if varies and "Vary" in stamped:
                    written.add_vary_header(varies)
            await send(message)

        try:
            self._access.check(scope, headers)
            if self._access.is_preflight(scope, headers):
                allowed = self._access.cors(headers, preflight=True)
                await Response(status_code=204, headers=allowed)(scope, receive, stamp)
            else:
                stamped |= self._access.cors(headers)
                await self._app(scope, receive, stamp)
        except EmberdError as error:
            stamped |= self._access.cors(headers)
            await render(error, scope)(scope, receive, stamp)
        except ClientDisconnect:
            pass  # nobody is waiting for an answer
        except Exception as error:  # noqa: BLE001 - last resort: an answer without a traceback
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"  # a full traceback might quote a text
            what = {"id": request_id, "exception": type(error).__name__, "at": where}
            log.error("emberd failed", extra=what)  # noqa: TRY400
            if not status:
                hint = (
                    f"Please report it, with the line of the server's log that has id {request_id}."
                )
                failed = EmberdError("emberd failed.", hint=hint)
                await render(failed, scope)(scope, receive, stamp)
        finally:
            reservation.set(0)
            self._note(request_id, scope, record, status, time.perf_counter() - began_s)

    def _note(
        self, request_id: str, scope: Scope, record: Record, status: int, seconds: float
    ) -> None:
        dialect, said = dialect_of(scope), str(status) if status else "hung_up"
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN
        if not record.lasts:
            self._metrics.answered(record, dialect=dialect, status=said, seconds=seconds)
            ended = Ended(time.time(), request_id, method, dialect, said, seconds, record)
            self._changes.answered(ended)
        level = logging.DEBUG if record.route == READY else logging.INFO
        if not log.isEnabledFor(level):
            return
        line: dict[str, object] = {
            "id": request_id,
            "method": method,
            "route": record.route,
            "status": status or "hung_up",
            "ms": in_ms(seconds),
            "dialect": dialect,
            "model": record.model,
        }
        if record.timing:
            line |= {"texts": record.texts, "tokens": record.tokens, "truncated": record.truncated}
            line |= {f"{stage}_ms": in_ms(spent_s) for stage, spent_s in record.timing.stages()}
        log.log(level, "request", extra=line)
