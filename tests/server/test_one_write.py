"""A short answer is one write; nothing of any answer is lost or comes in another order."""

import asyncio
from types import SimpleNamespace

import pytest

from emberd.server.one_write import SHORT_BYTES, OneWrite

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Recording(asyncio.Transport):
    """Records what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:  # noqa: D102
        assert not self.is_closed
        self.written.append(bytes(data))

    def is_closing(self) -> bool:  # noqa: D102
        return self.is_closed

    def close(self) -> None:  # noqa: D102
        self.is_closed = True


@pytest.fixture
def wire() -> Recording:
    return Recording()


@pytest.fixture
def answer(wire: Recording) -> OneWrite:
    """An answer whose head comes next."""
    return OneWrite(wire, SimpleNamespace(response_started=True))


def test_the_head_goes_out_with_a_short_body(wire: Recording, answer: OneWrite) -> None:
    answer.write(HEAD)
    assert wire.written == []

    answer.write(b"body")
    answer.write(b"more")

    assert wire.written == [HEAD + b"body", b"more"]


def test_an_empty_body_brings_the_head(wire: Recording, answer: OneWrite) -> None:
    answer.write(HEAD)
    answer.write(b"")

    assert wire.written == [HEAD]


def test_a_large_body_is_not_copied(wire: Recording, answer: OneWrite) -> None:
    body = b"x" * (SHORT_BYTES + 1)

    answer.write(HEAD)
    answer.write(body)

    assert wire.written == [HEAD, body]


def test_a_head_without_a_body_goes_out_at_the_end(wire: Recording, answer: OneWrite) -> None:
    answer.write(HEAD)
    answer.close()

    assert wire.written == [HEAD]
    assert answer.is_closing()


def test_an_interim_answer_goes_out_at_once(wire: Recording) -> None:
    cycle = SimpleNamespace(response_started=False)
    answer = OneWrite(wire, cycle)

    answer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    cycle.response_started = True
    answer.write(HEAD)
    answer.write(b"body")

    assert wire.written == [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"body"]
