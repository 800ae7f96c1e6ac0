"""`emberd.Client` and `emberd.AsyncClient`: texts in, NumPy arrays out, over the native API.

Vectors travel as raw float32. What the server refuses is raised as the exception that it raised,
of the tree in `emberd.errors`. The server never imports this.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import httpx2
import numpy as np
from numpy.typing import NDArray

from emberd.client.finding import Place, find_place
from emberd.config.load import load_config
from emberd.errors import (
    ConfigError,
    DeadlineError,
    EmberdError,
    NoServerError,
    WrongShapeError,
    from_code,
)
from emberd.units import parse_places

RAW = {"Accept": "application/octet-stream"}
InputType = Literal["query", "document"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request cost: the tokens that the model was fed, after cutting, with its prompt."""

    tokens: int


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """`vectors` is float32 (N, D), writable, in the order of the texts.

    `truncated` has the indices of texts that were cut, as they have more tokens than the model
    takes: what comes after is not in their vectors.
    """

    vectors: NDArray[np.float32]
    model: str
    fingerprint: str
    truncated: tuple[int, ...] = ()
    usage: Usage = Usage(0)


class _Shared:
    """What both clients do before and after they ask."""

    def __init__(self, url: str | None, socket: str | Path | None, token: str | None) -> None:
        if url is None and socket is None:
            self._place = _find(token)
        else:
            url = _checked_url("http://localhost" if url is None else url)
            self._place = Place(url, str(socket) if socket else None, token)

    def _settings(self, timeout: float | None) -> dict[str, Any]:
        place = self._place
        return {"base_url": place.url, "headers": place.headers, "timeout": timeout}

    def _failed(self, error: Exception) -> EmberdError:
        """Say why no answer came."""
        late = (httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout)
        if isinstance(error, late):
            return DeadlineError(
                f"The server at {self._place.name} did not answer within this client's timeout.",
                hint="It is busy, or the model still loads: give a longer `timeout`, or None for"
                " the server's own deadline.",
            )
        return NoServerError(
            f"The server at {self._place.name} did not answer ({type(error).__name__}).",
            hint="Start it with `emberd serve`, or look at its log.",
        )


class Client(_Shared):
    """A connection to a server; a context manager.

    Without `url` and `socket` the running server is found as the command line finds it, token
    included. `timeout` is in seconds, None for the server's own deadline alone.

    Raises:
        ConfigError: `url` is no URL, or the configuration is wrong.
        NoServerError: no server is running, or it does not answer; of every method.
        DeadlineError: it did not answer within `timeout`; of every method.
        EmberdError: what the server refuses, as the class it raised; of every method.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        socket: str | Path | None = None,
        token: str | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(url, socket, token)
        transport = httpx2.HTTPTransport(uds=self._place.socket, trust_env=False)
        self._http = httpx2.Client(transport=transport, **self._settings(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
    ) -> Embeddings:
        """Return the vectors of `texts`: one request, so at most `limits.max_texts` of them.

        `fingerprint` is the space expected: another one raises `FingerprintMismatchError`.
        """
        body = _body(texts, model, input_type, dimensions, truncate, fingerprint)
        return _embeddings(self._ask("POST", "/embed", body, RAW))

    def health(self) -> dict[str, Any]:
        """Return what `GET /health` says."""
        return _object(self._ask("GET", "/health"))

    def models(self) -> list[dict[str, Any]]:
        """Return a row for every entry of the registry."""
        rows: list[dict[str, Any]] = _object(self._ask("GET", "/models"))["models"]
        return rows

    def load(self, model: str | None = None) -> dict[str, Any]:
        """Load a model, the default one without a name; return its row once it is ready."""
        return _object(self._ask("POST", "/load", {"model": model}))

    def unload(self, model: str | None = None) -> list[str]:
        """Unload a model, all without a name; return their names once their memory is back."""
        names: list[str] = _object(self._ask("POST", "/unload", {"model": model}))["models"]
        return names

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except UnicodeEncodeError:
            raise _half_a_character(body) from None
        except httpx2.HTTPError as error:
            raise self._failed(error) from None
        return _checked(response)


class AsyncClient(_Shared):
    """`Client` for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str | None = None,
        *,
        socket: str | Path | None = None,
        token: str | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(url, socket, token)
        transport = httpx2.AsyncHTTPTransport(uds=self._place.socket, trust_env=False)
        self._http = httpx2.AsyncClient(transport=transport, **self._settings(timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
    ) -> Embeddings:
        """See `Client.embed`."""
        body = _body(texts, model, input_type, dimensions, truncate, fingerprint)
        return _embeddings(await self._ask("POST", "/embed", body, RAW))

    async def health(self) -> dict[str, Any]:
        """See `Client.health`."""
        return _object(await self._ask("GET", "/health"))

    async def models(self) -> list[dict[str, Any]]:
        """See `Client.models`."""
        rows: list[dict[str, Any]] = _object(await self._ask("GET", "/models"))["models"]
        return rows

    async def load(self, model: str | None = None) -> dict[str, Any]:
        """See `Client.load`."""
        return _object(await self._ask("POST", "/load", {"model": model}))

    async def unload(self, model: str | None = None) -> list[str]:
        """See `Client.unload`."""
        names: list[str] = _object(await self._ask("POST", "/unload", {"model": model}))["models"]
        return names

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        try:
            response = await self._http.request(method, path, json=body, headers=headers)
        except UnicodeEncodeError:
            raise _half_a_character(body) from None
        except httpx2.HTTPError as error:
            raise self._failed(error) from None
        return _checked(response)


def _find(token: str | None) -> Place:
    place = find_place(load_config())
    if place is None:
        raise NoServerError("No emberd server is running.", hint="Start one with `emberd serve`.")
    return Place(place.url, place.socket, token or place.token)


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"{url!r} is no URL.",
            hint="Write it whole, such as http://127.0.0.1:8767; a path goes to `socket=`.",
        )
    return url


def _body(
    texts: Sequence[str],
    model: str | None,
    input_type: InputType | None,
    dimensions: int | None,
    truncate: bool,
    fingerprint: str | None,
) -> dict[str, Any]:
    if isinstance(texts, str):  # a sequence of its letters
        raise WrongShapeError("texts is one string.", hint="Give a list: [text].")
    options = {
        "model": model,
        "input_type": input_type,
        "dimensions": dimensions,
        "fingerprint": fingerprint,
    }
    given = {key: value for key, value in options.items() if value is not None}
    return {"texts": list(texts), "truncate": truncate, **given}


def _half_a_character(body: Mapping[str, Any] | None) -> WrongShapeError:
    """Say, as the server would, which text UTF-8 cannot hold."""
    texts = (body or {}).get("texts", ())
    wrong = (
        f"texts.{index}"
        for index, text in enumerate(texts)
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text)
    )
    place = next(wrong, "the body")
    return WrongShapeError(
        f"{place}: holds half of a surrogate pair, which is no character.",
        hint="The text was cut inside of a character; cut it elsewhere or remove that half.",
        field=place,
    )


def _checked(response: httpx2.Response) -> httpx2.Response:
    if response.is_success:
        return response
    try:
        error: dict[str, Any] = response.json()
        raise from_code(error["code"], error["detail"], error["hint"])
    except (ValueError, KeyError, TypeError):
        raise NoServerError(
            f"What answered with status {response.status_code} is not emberd.",
            hint="Check the address.",
        ) from None


def _object(response: httpx2.Response) -> dict[str, Any]:
    answer: dict[str, Any] = response.json()
    return answer


def _embeddings(response: httpx2.Response) -> Embeddings:
    told = response.headers
    shape = int(told["x-emberd-rows"]), int(told["x-emberd-dimensions"])
    vectors = np.frombuffer(response.content, "<f4").reshape(shape).astype(np.float32)
    return Embeddings(
        vectors,
        told["x-emberd-model"],
        told["x-emberd-fingerprint"],
        parse_places(told["x-emberd-truncated"]),
        Usage(int(told["x-emberd-tokens"])),
    )
