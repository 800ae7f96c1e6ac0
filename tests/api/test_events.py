"""`GET /events`: what a watcher learns, that it disturbs nobody, and that a dead one is dropped."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.api.looking import LOOKED
from tests.api.watching import watching
from tests.serving import Server, wait_for

WATCH = b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SOON = 3  # samples, by an event: a general look comes every ten seconds
SECRET = "a text that nobody else may see"  # noqa: S105


def config_of(home: Path, more: str = "", *, large: bool = False) -> str:
    """Return a configuration with two small models, whose files it makes.

    `large`: a row of `tiny` is larger than what the buffers of a connection hold.
    """
    tiny_bert(home / "model")
    tiny = f"sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean"
    aliases = ", ".join(f"{number:0200}-name" for number in range(3000 if large else 0))
    models = f"{{tiny: {{{tiny}, aliases: [{aliases}]}}, other: {{{tiny}}}}}"
    return f"default: tiny\nmodels: {models}\n{more}"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two small models, and one store that need not exist."""
    home = tmp_path_factory.mktemp("watched")
    config = config_of(home, "stores: {notes: {path: nowhere.db}}\n")
    with Server(home, config=config) as running:
        yield running


def test_the_first_event_says_everything(watched: Server) -> None:
    with watching(watched) as stream:
        said = stream.until("hello")

    assert set(said) == {"server", "models", "warnings", "samples", "requests", "jobs"}
    server = said["server"]
    assert (server["default"], server["pid"]) == ("tiny", watched.process.pid)
    assert (server["address"], server["stores"]) == (watched.url, ["notes"])
    assert (server["budget_bytes"], server["needs_token"]) == (4 * 2**30, False)
    assert server["config"] == str(watched.home / "config.yaml")
    assert server["memory_bytes"] > 2**20
    assert server["instance"] == watched.http.get("/health").headers["x-emberd-instance"]
    assert {row["name"] for row in said["models"]} >= {"tiny", "other"}


def test_a_start_and_an_unload_are_told_as_they_happen(watched: Server) -> None:
    watched.http.post("/unload")
    with watching(watched) as stream:
        stream.until("hello")
        watched.embed("a")

        stream.row("tiny", lambda row: row["state"] == "starting")
        ready = stream.row("tiny", lambda row: row["state"] == "ready")
        assert ready["pid"]
        sample = stream.until("sample", lambda said: "tiny" in said["memory"])
        assert sample["memory"]["tiny"] > 2**20
        assert sample["server_bytes"] > 2**20
        watched.http.post("/unload", json={"model": "tiny"})
        stream.row("tiny", lambda row: row["state"] == "cold" and row["pid"] is None)
        left = stream.ever("sample", lambda said: said["left"])
        assert left["left"] == [{"model": "tiny", "reason": "asked"}]


def test_a_killed_worker_is_told_at_once(watched: Server) -> None:
    watched.embed("a")
    with watching(watched) as stream:
        hello = stream.until("hello")
        (pid,) = next(row["pids"] for row in hello["models"] if row["name"] == "tiny")
        os.kill(pid, signal.SIGKILL)

        stream.row("tiny", lambda row: row["state"] == "cold", samples=SOON)
        crash = {"model": "tiny", "reason": "crash"}
        sample = stream.ever("sample", lambda said: crash in said["left"])

    assert sample["left"] == [crash]
    assert sample["memory"] == {}


def test_a_request_is_told_without_its_texts(watched: Server) -> None:
    watched.embed("a")
    with watching(watched) as stream:
        stream.until("hello")
        stream.until("sample")  # of the second in which that was asked
        answer = watched.http.post(
            "/embed", json={"texts": [SECRET, "b"], "cache": False, "model": "tiny"}
        )

        (row,) = stream.until("requests")

    assert row["id"] == answer.headers["x-request-id"]
    assert abs(row["at_s"] - time.time()) < 60
    assert (row["method"], row["route"], row["status"]) == ("POST", "/embed", 200)
    assert (row["dialect"], row["model"], row["texts"]) == ("native", "tiny", 2)
    assert row["tokens"] == answer.json()["usage"]["tokens"]
    assert set(row["stages"]) == {"wait_ms", "queue_ms", "tokenize_ms", "model_ms", "encode_ms"}
    assert sum(row["stages"].values()) <= row["ms"] + 1
    with watching(watched) as later:
        hello = later.until("hello")
        samples = [*hello["samples"], later.until("sample")]
    assert row in hello["requests"]
    (second,) = (each for each in samples if each["p50_ms"] == row["ms"])
    assert (second["texts"], second["tokens"]) == (2, row["tokens"])
    assert (second["requests"], second["p99_ms"]) == (1, row["ms"])
    assert SECRET not in str((row, hello))


def test_what_only_looks_is_not_among_the_requests_but_what_fails_is(watched: Server) -> None:
    for path in ("/health", "/models", "/metrics", "/ui/"):
        assert watched.http.get(path).status_code == 200
    watched.http.get("/nowhere/of/yours")
    watched.http.post("/embed", json={"texts": "not a list"})

    with watching(watched) as stream:
        newest, before = stream.until("hello")["requests"][:2]

    assert (newest["route"], newest["status"], newest["model"]) == ("/embed", 422, None)
    assert (before["route"], before["status"]) == ("unknown", 404)
    assert "nowhere" not in str((newest, before))


def test_a_pin_is_told_at_once_also_of_a_model_that_is_not_loaded(watched: Server) -> None:
    watched.http.post("/unload")
    with watching(watched) as stream:
        stream.until("hello")
        for pinned in (True, False):
            watched.http.post("/pin", json={"model": "other", "pinned": pinned})
            row = stream.row("other", lambda row: row["pinned"] == pinned, samples=SOON)  # noqa: B023

            assert row["state"] == "cold"


def test_only_the_last_200_requests_are_kept(watched: Server) -> None:
    for _ in range(201):
        watched.http.post("/pin", json={"model": "other", "pinned": False})

    with watching(watched) as stream:
        requests = stream.until("hello")["requests"]

    assert [row["route"] for row in requests] == ["/pin"] * 200
    assert [row["at_s"] for row in requests] == sorted((r["at_s"] for r in requests), reverse=True)


def test_a_changed_config_file_is_told(home: Path) -> None:
    with Server(home, config=config_of(home)) as server, watching(server) as stream:
        stream.until("hello")
        file = home / "config.yaml"
        whole = file.read_text()
        file.write_text(whole.replace("default: tiny", "default: other"))
        assert stream.until("server")["default"] == "other"

        file.write_text(whole.replace("tiny:", "gone:").replace("default: tiny", "default: other"))
        assert stream.until("gone") == ["tiny"]
        stream.row("gone", lambda row: row["state"] == "cold")

        file.write_text("default: [")
        (warning,) = stream.until("warnings")
        assert warning["code"] == "config"


def test_files_that_a_command_has_removed_are_noticed(home: Path) -> None:
    with Server(home, config=config_of(home)) as server, watching(server) as stream:
        hello = stream.until("hello")
        assert next(row for row in hello["models"] if row["name"] == "tiny")["pulled"]

        (home / "model" / "model.safetensors").unlink()

        stream.row("tiny", lambda row: not row["pulled"])


def test_a_second_that_ends_asks_no_disk_whether_files_are_still_there(home: Path) -> None:
    with Server(home, config=config_of(home), entry="tests.api.looking") as server:
        server.embed("a")
        with watching(server) as stream:
            stream.until("hello")
            counts = []
            for _ in range(8):  # after ten, everything is looked at
                stream.until("sample")
                counts.append(server.log().count(LOOKED))

    assert counts[0] > 0
    assert counts[-1] == counts[1]  # one look, soon after the last state


def test_watching_keeps_no_model_loaded(home: Path) -> None:
    config = config_of(home, "limits: {idle_unload: 1s}\n")
    with Server(home, config=config) as server, watching(server) as stream:
        server.embed("a")

        stream.row("tiny", lambda row: row["state"] == "ready")
        left = stream.ever("sample", lambda said: said["left"])
        wait_for(lambda: server.row("tiny")["state"] == "cold")

    assert left["left"] == [{"model": "tiny", "reason": "idle"}]


@contextmanager
def deaf(server: Server) -> Iterator[socket.socket]:
    """Ask for the events and read none of them."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.sendall(WATCH)
        wait_for(lambda: is_connected(server, client))
        yield client


def is_connected(server: Server, client: socket.socket) -> bool:
    """Whether the server has its end of this connection open."""
    found = psutil.Process(server.process.pid).net_connections()
    return any(each.raddr == client.getsockname() for each in found)


def test_no_watcher_holds_a_shutdown_up_not_even_one_that_does_not_read(home: Path) -> None:
    server = Server(home, config=config_of(home, large=True))
    with watching(server) as stream, deaf(server):
        stream.until("hello")

        assert_ends_soon(server)

        stream.until_its_end()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a connection holds")
def test_nor_does_one_to_whom_all_was_sent_but_who_has_not_read_it(home: Path) -> None:
    """What the kernel no longer takes is in the server, which still counts it as sent.

    A row of `other` is so large that the kernel soon takes no more, and so small that two of them
    do not pause who writes.
    """
    aliases = ", ".join(f"{number:0100}-of-a-model" for number in range(250))
    config = config_of(home).replace("mean}}", f"mean, aliases: [{aliases}]}}}}")
    with Server(home, config=config) as server, watching(server) as stream, deaf(server) as client:
        stream.until("hello")
        held, pinned, is_taken = 0, False, True
        while is_taken:
            pinned = not pinned
            server.http.post("/pin", json={"model": "other", "pinned": pinned})
            stream.row("other", lambda row: row["pinned"] == pinned)  # noqa: B023
            with suppress(AssertionError):
                is_taken = False
                held = wait_for(lambda: unread_above(server, client, held), within_s=1.0)  # noqa: B023
                is_taken = True

        assert_ends_soon(server)


def unread_above(server: Server, client: socket.socket, least: int) -> int | None:
    """Return what the kernel holds of what was sent to a client, if it is more than that."""
    to = f":{client.getsockname()[1]:04X}"
    for line in Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, queues, *_ = line.split()
        if remote.endswith(to):
            held = int(queues.partition(":")[0], 16)
            return held if held > least else None
    raise LookupError("there is no such connection")


def assert_ends_soon(server: Server) -> None:
    """Have it end, without the grace for connections that stay open, which is 10 s."""
    began_s = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began_s < 9


def test_who_does_not_read_is_dropped_and_others_are_told_everything(home: Path) -> None:
    with (
        Server(home, config=config_of(home, large=True)) as server,
        watching(server) as stream,
        deaf(server) as client,
    ):
        stream.until("hello")
        rounds = 0
        while is_connected(server, client):
            rounds += 1
            assert rounds < 100
            server.http.post("/pin", json={"model": "tiny", "pinned": True})
            stream.row("tiny", lambda row: row["pinned"])
            server.http.post("/pin", json={"model": "tiny", "pinned": False})
            stream.row("tiny", lambda row: not row["pinned"])


def test_a_stream_says_nothing_about_how_fast_requests_are(watched: Server) -> None:
    before = watched.http.get("/metrics").text
    with watching(watched) as stream:
        stream.until("hello")
    wait_for(lambda: "/events" in watched.log())

    after = watched.http.get("/metrics").text
    assert 'route="/events"' not in before + after


def test_only_a_head_is_sent_to_who_asks_for_the_head(watched: Server) -> None:
    answer = watched.http.head("/events")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


def test_seconds_in_which_nobody_watches_and_nothing_happens_are_not_looked_at(home: Path) -> None:
    with Server(home, config=config_of(home)) as server:
        with watching(server) as stream:
            seen_s = stream.until("sample")["at_s"]
        wait_for(lambda: '"route":"/events"' in server.log())  # it has noticed that nobody watches
        left_s = time.time()
        time.sleep(4)
        back_s = time.time()
        with watching(server) as stream:
            kept_s = [sample["at_s"] for sample in stream.until("hello")["samples"]]
            now_s = stream.until("sample")["at_s"]

    assert seen_s in kept_s
    assert not [at_s for at_s in kept_s if left_s < at_s < back_s - 1]
    assert now_s - seen_s >= 4
