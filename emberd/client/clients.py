"""`emberd.Client` and `emberd.AsyncClient`: texts in, NumPy arrays out, over the native API.

Vectors travel as raw numbers. An error of the server is raised as the same class of
`emberd.errors` that the server raised. The server never imports this.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from emberd.client import finding, requests
from emberd.client.address import Address
from emberd.client.answers import Chunks, Embeddings, Ranking, SparseEmbeddings
from emberd.client.connection import AsyncConnection, Connection
from emberd.client.requests import InputType, Request
from emberd.client.several import AsyncSeveral, Several
from emberd.config.load import Config, load_config
from emberd.dtypes import Dtype
from emberd.errors import ConfigError
from emberd.spaces.chunks import ChunkKind

T = TypeVar("T")


class Client:
    """A connection to a server; a context manager, and safe to share between threads.

    Without `url` and `socket`, the running server is found as the command line finds it, token
    included. `timeout` is in seconds; with None, only the server's own deadline applies.

    Several URLs are asked as if they were one server: more than 256 texts are divided among them,
    what one cannot do another tries, and an answer in another space than the first is refused.
    `load`, `unload` and `reload` go to every one; `health` and `models` to the first that answers.

    Raises:
        ConfigError: `url` is not a URL, or the configuration is wrong.
        NoServerError: no server is running, or it does not answer (any method).
        DeadlineError: it did not answer within `timeout` (any method).
        EmberdError: the server's own error, as the class that it raised (any method).
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        socket: str | Path | None = None,
        token: str | None = None,
        timeout: float | None = None,
    ) -> None:
        addresses = _addresses(url, socket, token)
        is_one = url is None or isinstance(url, str)
        self._servers: Connection | Several = (
            Connection(addresses[0], timeout) if is_one else Several(addresses, timeout)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._servers.close()

    @property
    def address(self) -> str:
        """Where the server is, for people to read: a URL, or `unix:` and a path."""
        return str(self._servers.address)

    def embed(  # noqa: PLR0913 - the options of a request
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
        cache: bool = True,
        dtype: Dtype | None = None,
        chunk: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """Return the vectors of `texts`: at most `limits.max_texts` of them, if it is one server.

        `fingerprint` is the expected space; any other raises `FingerprintMismatchError`. Without
        `cache`, every text is computed anew. `chunk`: there is a vector for each chunk of the
        texts; its keys are the options of `chunk` below and `late` (the model reads each text
        whole), and `{}` means chunks as large as the model takes. `dtype` is what the numbers of
        the vectors become: `float` (float32, the default), `float16`, `int8`, `uint8`, `binary` or
        `ubinary`, each of which is a space of its own.
        """
        return self.send(
            requests.embed(
                texts,
                model=model,
                input_type=input_type,
                dimensions=dimensions,
                truncate=truncate,
                fingerprint=fingerprint,
                cache=cache,
                dtype=dtype,
                chunk=chunk,
            )
        )

    def chunk(
        self,
        texts: Sequence[str],
        *,
        size: int | None = None,
        overlap: int = 0,
        kind: ChunkKind = "text",
        language: str | None = None,
        model: str | None = None,
        input_type: InputType | None = None,
    ) -> Chunks:
        """Return where to cut texts so that the model takes each part.

        `size` and `overlap` are in tokens, without special ones; None: as large as the model takes.
        `language` is of kind `code`.
        """
        return self.send(
            requests.chunk(
                texts,
                size=size,
                overlap=overlap,
                kind=kind,
                language=language,
                model=model,
                input_type=input_type,
            )
        )

    def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
    ) -> SparseEmbeddings:
        """Return the sparse vectors of `texts`; see `embed`."""
        return self.send(
            requests.embed_sparse(
                texts,
                model=model,
                input_type=input_type,
                truncate=truncate,
                fingerprint=fingerprint,
            )
        )

    def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        truncate: bool = True,
        cache: bool = True,
    ) -> Ranking:
        """Return `texts` in the order of their relevance to `query`, the best `top_n` or all.

        Without `cache`, every score is computed anew.
        """
        return self.send(
            requests.rerank(query, texts, model=model, top_n=top_n, truncate=truncate, cache=cache)
        )

    def health(self) -> dict[str, Any]:
        """Return what `GET /health` says."""
        return self.send(requests.health())

    def models(self) -> list[dict[str, Any]]:
        """Return a row for every entry of the registry."""
        return self.send(requests.models())

    def load(self, model: str | None = None) -> dict[str, Any]:
        """Load a model, by default the default model; return its row once it is ready."""
        return self.send(requests.load(model))

    def unload(self, model: str | None = None) -> list[str]:
        """Unload a model, by default all of them; return the names once the memory is back."""
        return self.send(requests.unload(model))

    def send(self, request: Request[T]) -> T:
        """Send a request of `emberd.client.requests` and return its answer."""
        return self._servers.send(request)


class AsyncClient:
    """`Client` for asyncio: the same methods, awaited."""

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        *,
        socket: str | Path | None = None,
        token: str | None = None,
        timeout: float | None = None,
    ) -> None:
        addresses = _addresses(url, socket, token)
        is_one = url is None or isinstance(url, str)
        self._servers: AsyncConnection | AsyncSeveral = (
            AsyncConnection(addresses[0], timeout) if is_one else AsyncSeveral(addresses, timeout)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._servers.close()

    @property
    def address(self) -> str:
        """See `Client.address`."""
        return str(self._servers.address)

    async def embed(  # noqa: PLR0913 - as above
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        dimensions: int | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
        cache: bool = True,
        dtype: Dtype | None = None,
        chunk: Mapping[str, Any] | None = None,
    ) -> Embeddings:
        """See `Client.embed`."""
        return await self.send(
            requests.embed(
                texts,
                model=model,
                input_type=input_type,
                dimensions=dimensions,
                truncate=truncate,
                fingerprint=fingerprint,
                cache=cache,
                dtype=dtype,
                chunk=chunk,
            )
        )

    async def chunk(
        self,
        texts: Sequence[str],
        *,
        size: int | None = None,
        overlap: int = 0,
        kind: ChunkKind = "text",
        language: str | None = None,
        model: str | None = None,
        input_type: InputType | None = None,
    ) -> Chunks:
        """See `Client.chunk`."""
        return await self.send(
            requests.chunk(
                texts,
                size=size,
                overlap=overlap,
                kind=kind,
                language=language,
                model=model,
                input_type=input_type,
            )
        )

    async def embed_sparse(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        input_type: InputType | None = None,
        truncate: bool = True,
        fingerprint: str | None = None,
    ) -> SparseEmbeddings:
        """See `Client.embed_sparse`."""
        return await self.send(
            requests.embed_sparse(
                texts,
                model=model,
                input_type=input_type,
                truncate=truncate,
                fingerprint=fingerprint,
            )
        )

    async def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        truncate: bool = True,
        cache: bool = True,
    ) -> Ranking:
        """See `Client.rerank`."""
        return await self.send(
            requests.rerank(query, texts, model=model, top_n=top_n, truncate=truncate, cache=cache)
        )

    async def health(self) -> dict[str, Any]:
        """See `Client.health`."""
        return await self.send(requests.health())

    async def models(self) -> list[dict[str, Any]]:
        """See `Client.models`."""
        return await self.send(requests.models())

    async def load(self, model: str | None = None) -> dict[str, Any]:
        """See `Client.load`."""
        return await self.send(requests.load(model))

    async def unload(self, model: str | None = None) -> list[str]:
        """See `Client.unload`."""
        return await self.send(requests.unload(model))

    async def send(self, request: Request[T]) -> T:
        """See `Client.send`."""
        return await self._servers.send(request)


def at(address: Address) -> Client:
    """Return a client of the server at an address."""
    return Client(address.url, socket=address.socket, token=address.token)


def find(config: Config) -> Client | None:
    """Return a client of this home's server, or of the one that a flag or the environment names."""
    address = finding.find_address(config)
    return at(address) if address else None


def _addresses(
    url: str | Sequence[str] | None, socket: str | Path | None, token: str | None
) -> list[Address]:
    if url is None or isinstance(url, str):
        return [_address(url, socket, token)]
    if socket is not None or not url:
        raise ConfigError(
            "A list of addresses is of several URLs, and there is a `socket`."
            if url
            else "The list of addresses is empty.",
            hint="Pass `socket=` alone, or at least one URL.",
        )
    return [Address(_checked_url(each), token=token) for each in url]


def _address(url: str | None, socket: str | Path | None, token: str | None) -> Address:
    if url is not None or socket is not None:
        url = _checked_url("http://localhost" if url is None else url)
        return Address(url, str(socket) if socket else None, token)
    found = finding.require(finding.find_address(load_config()))
    return Address(found.url, found.socket, token or found.token)


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"{url!r} is not a URL.",
            hint="Write a full URL, such as http://127.0.0.1:8767; a path goes in `socket=`.",
        )
    return url
