"""What a request may cost the server before it is refused: little memory, and little time."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.guarded import raw
from tests.api.test_bad_input import JSON
from tests.serving import Server

MIB = 2**20
MANY = 5 * MIB  # values of three bytes each: all that limits.max_body lets in
BODIES: dict[str, tuple[str, bytes, int]] = {
    "numbers for texts": ("/embed", b'{"texts": [' + b"11," * MANY + b"1]}", 422),
    "numbers and a text": ("/v1/embeddings", b'{"input": ["",' + b"11," * MANY + b"1]}", 422),
    "lists for texts": ("/api/embed", b'{"input": [' + b"[]," * MANY + b"[]]}", 422),
    "half a character at the end": (
        "/", b'{"inputs": [' + b'"",' * MANY + b'"\\ud800"]}', 422,
    ),
    "a long name": ("/embed", b'{"texts": ["a"], "model": "' + b"abc" * MANY + b'"}', 404),
    "unknown keys": (
        "/unload", b"{" + b",".join(b'"%x":1' % key for key in range(MIB)) + b"}", 422,
    ),
    "too many texts": ("/embed", b'{"texts": [' + b'"",' * MANY + b'""]}', 413),
}  # fmt: skip
TAKE_A_SECOND = ("lists for texts", "half a character at the end", "unknown keys")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one's own: what it held at most is remembered as long as it lives."""
    with Server(tmp_path_factory.mktemp("sizes")) as running:
        yield running


def most_bytes(server: Server) -> int:
    """Return the most resident memory that the server ever had."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[pytest.mark.slow] if name in TAKE_A_SECOND else [])
        for name, case in BODIES.items()
    ],
)
def test_a_body_costs_less_than_40_times_its_size(
    server: Server, case: tuple[str, bytes, int]
) -> None:
    """One error for each of millions of values would cost 400 times as much, and a minute."""
    path, body, status = case
    assert 7 * MIB < len(body) <= 16 * MIB
    began_s = time.monotonic()

    response = server.http.post(path, content=body, headers=JSON)

    assert response.status_code == status
    assert len(response.content) < 1000
    assert most_bytes(server) < 40 * 16 * MIB
    assert time.monotonic() - began_s < 20  # a second or two, on a machine that is free


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells")
def test_a_content_length_is_not_believed(home: Path) -> None:
    with Server(home) as own:
        before = most_bytes(own)
        for length in (2**40, 2**63 - 1, 17 * MIB):
            head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            answer = raw(own, head + b"Content-Length: %d\r\n\r\n{" % length)
            assert answer.startswith(b"HTTP/1.1 413 ")

        assert most_bytes(own) - before < 8 * MIB
