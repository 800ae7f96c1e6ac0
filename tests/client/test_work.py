"""What a server gets of a divided request, and when that has failed. No network, no clock."""

import numpy as np
import pytest

from emberd.client import requests
from emberd.client.address import Address
from emberd.client.answers import Embeddings
from emberd.client.work import AT_ONCE, LONGEST_REST_S, PART_TEXTS, ROUNDS, Server, Work
from emberd.errors import FingerprintMismatchError, NoServerError

HERE = [Address(f"http://127.0.0.1:{port}") for port in (8761, 8762)]
PARTS = 5


def work(servers: list[Server], fingerprint: str | None = None) -> Work[Embeddings]:
    request = requests.embed(["a text"] * (PARTS * PART_TEXTS), fingerprint=fingerprint)
    return Work(request, servers, {})


def test_a_server_that_is_dead_for_days_rests_no_longer_than_the_longest() -> None:
    server = Server(HERE[0])

    for _ in range(5000):
        server.fail(100.0)

    assert server.rests_until_s == 100.0 + LONGEST_REST_S


def test_a_request_ends_if_a_part_that_waits_has_no_server_left() -> None:
    """One server was away for all rounds of a part; then the other turns out to be no use."""
    servers = [Server(each) for each in HERE]
    asked = work(servers, fingerprint="f" * 16)
    now_s = 0.0
    running = list(asked.turns(now_s))
    assert [at for at, _ in running] == [0, 1] * AT_ONCE
    doomed = running[0]
    for _ in range(ROUNDS - 1):
        asked.ended(*doomed, NoServerError("It is away."), now_s)
        now_s += LONGEST_REST_S
        doomed = next(turn for turn in asked.turns(now_s) if turn[0] == 0)
    asked.ended(*doomed, NoServerError("It is away."), now_s)

    with pytest.raises(FingerprintMismatchError, match="another space"):
        asked.ended(*running[1], FingerprintMismatchError("It is another space."), now_s)


def test_parts_are_put_together_in_order() -> None:
    asked = work([Server(HERE[0])])
    while not asked.is_done:
        for at, part in reversed(list(asked.turns(0.0))):
            vectors = np.full((PART_TEXTS, 2), part.start, np.float32)
            asked.ended(at, part, Embeddings(vectors, "minilm", "f"), 0.0)

    assert asked.answer().vectors[:, 0].tolist() == [
        float(at // PART_TEXTS * PART_TEXTS) for at in range(PARTS * PART_TEXTS)
    ]
