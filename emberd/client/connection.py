"""A connection to one server: a request goes out, its answer or an error of the tree comes back."""

from typing import Any, TypeVar

import httpx2

from emberd.client.address import Address
from emberd.client.requests import Request
from emberd.errors import DeadlineError, EmberdError, NoServerError

T = TypeVar("T")


class Connection:
    """To the server at an address. `timeout` is in seconds; None: as long as the server takes."""

    def __init__(self, address: Address, timeout: float | httpx2.Timeout | None) -> None:
        self.address = address
        transport = httpx2.HTTPTransport(**address.transport)
        self._http = httpx2.Client(transport=transport, **_settings(address, timeout))

    def send(self, request: Request[T]) -> T:
        """Send a request and return its answer. Raises EmberdError."""
        try:
            response = self._http.send(_built(self._http, request))
        except httpx2.HTTPError as error:
            raise _failed(self.address, error) from None
        return request.read(response)

    def close(self) -> None:
        """Close it."""
        self._http.close()


class AsyncConnection:
    """`Connection` for asyncio."""

    def __init__(self, address: Address, timeout: float | httpx2.Timeout | None) -> None:
        self.address = address
        transport = httpx2.AsyncHTTPTransport(**address.transport)
        self._http = httpx2.AsyncClient(transport=transport, **_settings(address, timeout))

    async def send(self, request: Request[T]) -> T:
        """See `Connection.send`."""
        try:
            response = await self._http.send(_built(self._http, request))
        except httpx2.HTTPError as error:
            raise _failed(self.address, error) from None
        return request.read(response)

    async def close(self) -> None:
        """Close it."""
        await self._http.aclose()


def _settings(address: Address, timeout: float | httpx2.Timeout | None) -> dict[str, Any]:
    return {"base_url": address.url, "headers": address.headers, "timeout": timeout}


def _built(http: httpx2.Client | httpx2.AsyncClient, request: Request[Any]) -> httpx2.Request:
    return http.build_request(
        request.method, request.path, content=request.content, headers=request.headers
    )


def _failed(address: Address, error: httpx2.HTTPError) -> EmberdError:
    """Return the error that says why no answer came."""
    if isinstance(error, (httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout)):
        return DeadlineError(
            f"The server at {address} did not answer within this client's timeout.",
            hint="It is busy, or the model is still loading. Use a longer `timeout`, or None for"
            " the server's own deadline.",
        )
    return NoServerError(
        f"The server at {address} did not answer ({type(error).__name__}).",
        hint="Start it with `emberd serve`, or check its log.",
    )
