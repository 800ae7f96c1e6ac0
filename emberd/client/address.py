"""The address of a server: its URL, its Unix socket, and the token it takes."""

import ssl
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Address:
    """A URL, and optionally the Unix socket to reach it through, and a token."""

    url: str
    socket: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every request carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @property
    def verify(self) -> ssl.SSLContext | bool:
        """What httpx verifies the server's certificate with.

        For http it is a context that trusts nobody: reading the system's certificates takes 60 ms.
        """
        if self.url.lower().startswith("https:"):
            return True
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    @property
    def transport(self) -> dict[str, Any]:
        """The arguments of httpx's `HTTPTransport` or `AsyncHTTPTransport` to this address."""
        return {"uds": self.socket, "verify": self.verify, "trust_env": False}

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url
