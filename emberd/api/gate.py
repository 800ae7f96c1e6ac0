"""What every request passes, whatever its route: who may ask, a request id, one line in the log.

Pure ASGI, so that routes see a client hang up.
"""

import ipaddress
import logging
import secrets
import time
import traceback
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from emberd.api.errors import native, render
from emberd.errors import ForbiddenError

log = logging.getLogger("emberd.api")


class Gate:
    """The outermost layer of the app."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Sequence[str], allowed_origins: Sequence[str]
    ) -> None:
        self._app = app
        self._hosts = {host.lower() for host in allowed_hosts} | {"localhost"}
        self._origins = set(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; other kinds of traffic pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        began_s = time.perf_counter()
        status = 0

        async def stamp(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            self._check(Headers(scope=scope))
            await self._app(scope, receive, stamp)
        except ForbiddenError as error:
            await render(error)(scope, receive, stamp)
        except ClientDisconnect:
            pass  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - the last net: an answer, and no traceback
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"  # a whole traceback might quote a text
            log.error("%s %s at %s", request_id, type(error).__name__, where)  # noqa: TRY400
            if not status:
                hint = f"Report it with the line of the server's log that starts {request_id}."
                await native(500, "emberd failed.", "internal", hint)(scope, receive, stamp)
        finally:
            spent_ms = (time.perf_counter() - began_s) * 1000
            log.info(
                "%s %s %s %s %.1fms",
                request_id, scope["method"], scope["path"][:200].encode("unicode_escape").decode(),
                status or "hung up", spent_ms,
            )  # fmt: skip

    def _check(self, headers: Headers) -> None:
        """Refuse names that are not this server's (DNS rebinding) and foreign web pages."""
        host = headers.get("host", "")
        name = (urlsplit(f"//{host}").hostname or "") if _is_sane(host) else host
        if name and name not in self._hosts and not _is_address(name):
            raise ForbiddenError(
                "The Host header names another server.",
                hint="Ask 127.0.0.1 or localhost, or add the name to server.allowed_hosts.",
            )
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            raise ForbiddenError(
                "Web pages of that origin may not ask this server.",
                hint="Add the origin to server.allowed_origins.",
            )


def _is_sane(host: str) -> bool:
    try:
        urlsplit(f"//{host}")
    except ValueError:
        return False
    return True


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
