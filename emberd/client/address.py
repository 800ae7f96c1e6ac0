"""The address of a server: its URL, its Unix socket, and the token it takes."""

from dataclasses import dataclass, field


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

    def __str__(self) -> str:
        return f"unix:{self.socket}" if self.socket else self.url
