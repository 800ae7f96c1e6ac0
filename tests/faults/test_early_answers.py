"""Answers that come before the end of a request, and clients that send no more: both are read."""

import http.client
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from emberd.server.timeouts import Timeouts
from tests.api.guarded import OWN, by_socket, start
from tests.effort import examples
from tests.faults.test_connections import BODY, EMBED, connect
from tests.fuzz.talk import read_reply
from tests.serving import Server, wait_for

MIB = 2**20
LARGE = b" " * (24 * MIB)
TRIES = examples(30)
AS_JSON = {"Content-Type": "application/json"}
REFUSED: dict[str, tuple[int, str, str, dict[str, str]]] = {
    "413": (413, "POST", "/embed", AS_JSON),
    "415": (415, "POST", "/embed", {"Content-Type": "text/plain"}),
    "404": (404, "POST", "/nowhere", AS_JSON),
    "405": (405, "PUT", "/embed", AS_JSON),
    "403 of a host": (403, "POST", "/embed", AS_JSON | {"Host": "evil.example"}),
    "403 of a page": (403, "POST", "/v1/embeddings", AS_JSON | {"Origin": "http://evil.example"}),
}


def by_urllib(
    server: Server, method: str, path: str, headers: dict[str, str], body: object = LARGE
) -> int:
    """Return the status, by Python's own client, which says `Connection: close`."""
    request = urllib.request.Request(  # noqa: S310 - of our own server
        server.url + path,
        data=body,  # type: ignore[arg-type] # an iterable, too
        headers=headers,
        method=method,
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(request, timeout=60)
    with refused.value as answer:
        assert answer.read()
        return answer.code


@pytest.mark.parametrize("case", REFUSED.values(), ids=list(REFUSED))
def test_urllib_reads_why_a_large_body_is_refused(
    server: Server, case: tuple[int, str, str, dict[str, str]]
) -> None:
    status, method, path, headers = case

    answers = Counter(by_urllib(server, method, path, headers) for _ in range(TRIES))

    assert answers == {status: TRIES}


def test_urllib_reads_why_a_body_without_a_length_is_refused(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(24):
            yield b" " * MIB

    headers = AS_JSON | {"Transfer-Encoding": "chunked"}
    answers = Counter(by_urllib(server, "POST", "/embed", headers, chunks()) for _ in range(TRIES))

    assert answers == {413: TRIES}


def test_urllib_reads_that_a_token_is_missing_or_the_queue_is_full(tmp_path: Path) -> None:
    with start(tmp_path / "guarded") as own:
        answers = Counter(by_urllib(own, "POST", "/embed", AS_JSON) for _ in range(TRIES))
    assert answers == {401: TRIES}

    config = "limits: {max_queued_bytes: 1MiB}"
    with Server(tmp_path / "full", config=config) as own, connect(own) as slow:
        slow.sendall(EMBED + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000)
        body = b" " * (15 * MIB)
        answers = Counter(by_urllib(own, "POST", "/embed", AS_JSON, body) for _ in range(TRIES))
    assert answers == {429: TRIES}


class ByUnixSocket(http.client.HTTPConnection):
    """http.client's, to a path."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@pytest.mark.slow
def test_a_refusal_is_read_through_a_unix_socket_too(tmp_path: Path) -> None:
    with start(tmp_path / "guarded") as own:
        answers: Counter[int] = Counter()
        for _ in range(TRIES):
            connection = ByUnixSocket(own.home / "s")
            headers = AS_JSON | {"Connection": "close", "Authorization": f"Bearer {OWN}"}
            connection.request("POST", "/embed", body=LARGE, headers=headers)
            answers[connection.getresponse().status] += 1
            connection.close()

        assert answers == {413: TRIES}


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000, 431),
        (b"what is this?\r\n\r\n" + b"a" * 100_000, 400),
    ],
    ids=["a large head", "no HTTP"],
)
def test_what_is_refused_before_it_is_a_request_can_be_read_too(
    server: Server, content: bytes, status: int
) -> None:
    answers: Counter[int] = Counter()
    for _ in range(TRIES):
        with connect(server) as connection:
            connection.sendall(content + b"a" * (4 * MIB))
            answers[read_reply(connection, "GET").status] += 1
            assert connection.recv(1) == b""

    assert answers == {status: TRIES}


def test_far_more_than_was_refused_may_come_before_the_answer_is_read(server: Server) -> None:
    head = EMBED + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (100 * MIB)
    before = psutil.Process(server.process.pid).memory_info().rss
    with connect(server) as connection:
        connection.sendall(head)
        for _ in range(100):
            connection.sendall(b" " * MIB)

        reply = read_reply(connection, "POST")
        assert (reply.status, reply.json["code"]) == (413, "too_large")
    assert psutil.Process(server.process.pid).memory_info().rss - before < 16 * MIB


def test_a_kept_connection_goes_on_after_a_refusal(server: Server) -> None:
    head = EMBED + b"Content-Length: %d\r\n\r\n" % len(LARGE)
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(head + LARGE)
            assert read_reply(connection, "POST").status == 413
            connection.sendall(EMBED + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert read_reply(connection, "POST").status == 200


def test_a_refused_body_that_does_not_end_is_not_answered_twice(home: Path) -> None:
    quick = Timeouts(request_s=0.5)
    with Server(home, timeouts=quick) as own, connect(own) as connection:
        connection.sendall(EMBED + b"Content-Length: %d\r\n\r\n " % len(LARGE))

        assert read_reply(connection, "POST").status == 413
        assert connection.recv(4096) == b""


def send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b" " * MIB)
        time.sleep(0.01)


def test_who_goes_on_sending_for_ever_is_cut_off(home: Path) -> None:
    quick = Timeouts(linger_s=0.3)
    head = EMBED + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % 2**40
    with Server(home, timeouts=quick) as own, connect(own) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            send_for_ever(connection)


@pytest.mark.slow
def test_connections_that_were_answered_and_stay_are_few_and_go(home: Path) -> None:
    head = EMBED + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % 2**40
    quick = Timeouts(silence_s=10)
    with Server(home, timeouts=quick) as own, ExitStack() as open_ones:
        process = psutil.Process(own.process.pid)
        before = process.num_fds()
        for _ in range(300):
            open_ones.enter_context(connect(own)).sendall(head)

        wait_for(lambda: own.log().count('"status":413') == 300)
        # before silence ends the first of them
        wait_for(lambda: process.num_fds() <= before + 64 + 1, within_s=5)
        wait_for(lambda: process.num_fds() <= before + 1)


# -- clients that send no more --------------------------------------------------------------

WHOLE = EMBED + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
Connect = Callable[[Server], socket.socket]


def connect_by_socket(server: Server) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(str(server.home / "s"))
    return connection


BOTH = pytest.mark.parametrize("by", [connect, connect_by_socket], ids=["TCP", "a Unix socket"])
HEARD = {"Authorization": f"Bearer {OWN}"}
WITH_TOKEN = WHOLE.replace(b"Host:", b"Authorization: Bearer %b\r\nHost:" % OWN.encode())


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server at a port and at a Unix socket."""
    with start(tmp_path_factory.mktemp("g")) as own:
        own.http.headers |= HEARD
        yield own


@pytest.fixture
def cold(guarded: Server) -> Server:
    """The same, without a loaded model."""
    assert guarded.http.post("/unload").status_code == 200
    return guarded


@BOTH
def test_who_half_closes_after_a_request_gets_its_answer(cold: Server, by: Connect) -> None:
    for _ in range(3):  # the first waits for the model to load
        with by(cold) as connection:
            connection.sendall(WITH_TOKEN)
            connection.shutdown(socket.SHUT_WR)

            assert read_reply(connection, "POST").status == 200
            assert connection.recv(1) == b""


@pytest.mark.slow
@BOTH
def test_who_half_closes_after_several_requests_gets_every_answer(
    guarded: Server, by: Connect
) -> None:
    with by(guarded) as connection:
        connection.sendall(WITH_TOKEN * 3)
        connection.shutdown(socket.SHUT_WR)

        for _ in range(3):
            assert read_reply(connection, "POST").status == 200
        assert connection.recv(1) == b""


@pytest.mark.slow
@BOTH
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells it of TCP")
def test_who_half_closes_late_gets_its_answer_and_who_hangs_up_at_once_leaves_the_queue(
    guarded: Server, by: Connect
) -> None:
    log = guarded.home / "emberd.log"
    guarded.embed("load")
    before = log.read_text().count('"status":"hung_up"')
    (worker,) = guarded.workers()
    worker.suspend()
    try:
        with by(guarded) as stays, ExitStack() as leaving:
            stays.sendall(WITH_TOKEN)
            for _ in range(20):
                leaves = leaving.enter_context(by(guarded))
                leaves.sendall(WITH_TOKEN)
                leaves.shutdown(socket.SHUT_WR)
            wait_for(lambda: guarded.row()["in_flight"] == 21)
            time.sleep(1.5)  # more than a moment after its request
            stays.shutdown(socket.SHUT_WR)
            leaving.close()

            wait_for(lambda: log.read_text().count('"status":"hung_up"') == before + 20)
            assert guarded.row()["in_flight"] == 1
            worker.resume()
            assert read_reply(stays, "POST").status == 200
    finally:
        worker.resume()


@BOTH
def test_who_half_closes_in_the_middle_of_a_request_has_hung_up(
    guarded: Server, by: Connect
) -> None:
    with by(guarded) as connection:
        connection.sendall(WITH_TOKEN[:-5])
        connection.shutdown(socket.SHUT_WR)

        assert connection.recv(1) == b""
    with by_socket(guarded) as client:
        assert client.get("/ready", headers=HEARD).status_code == 200
