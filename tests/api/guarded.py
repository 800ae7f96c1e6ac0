"""A server with every access check switched on, shared by the tests of those checks."""

import socket
from pathlib import Path

import httpx2

from emberd.client.address import Address
from tests.serving import Server

TOKENS = ("first-token-0123456789", "second-token-abcdef", "third.token_~+/=")
OWN = "of-the-environment-42"
ORIGIN = "http://localhost:3000"
LISTED = (
    ORIGIN,
    "app://obsidian.md/",
    "app://",
    "file://",
    "tauri://localhost",
    "HTTPS://Pages.example:443",
)


def start(folder: Path, *, forked: bool = True) -> Server:
    """Return a running server: TCP and a Unix socket, four tokens, one allowed page, a log file.

    Not `forked`: its process has the arguments of a real one.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    token_file = folder / "tokens"
    token_file.touch(0o600)
    token_file.write_text("# ours\n" + "\n\n".join(TOKENS) + "\n")
    config = f"""
server: {{socket: {folder}/s, token_file: {token_file}, allowed_origins: [{", ".join(LISTED)}],
  allowed_hosts: [embeddings.example]}}
log: {{file: {folder}/emberd.log, max_bytes: 20KiB, backups: 2}}
"""
    return Server(folder, config=config, environ={"EMBERD_TOKEN": OWN}, forked=forked)


def by_socket(server: Server) -> httpx2.Client:
    """Return a client of its Unix socket."""
    at = Address("http://localhost", str(server.home / "s"))
    transport = httpx2.HTTPTransport(**at.transport)
    return httpx2.Client(base_url=at.url, transport=transport, timeout=60)


def bearer(token: str) -> dict[str, str]:
    """Return the header."""
    return {"Authorization": f"Bearer {token}"}


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes and return the first of the answer, for what no client library sends."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(4096)
