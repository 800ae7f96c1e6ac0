"""`/map`: stores read by processes of their own, which come and go."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import psutil
import pytest

from emberd.vectors import Matrix
from tests.atlas.maps import HOSTILE, OF_NEW, ROWS, make_home, texts
from tests.serving import Server, has_ended, wait_for


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Matrix]]:
    """A home with stores, and the vectors in them."""
    home = tmp_path_factory.mktemp("mapped")
    return home, make_home(home)


@pytest.fixture(scope="module")
def mapped(home: tuple[Path, dict[str, Matrix]]) -> Iterator[Server]:
    """A server that is configured with them."""
    with Server(home[0]) as running:
        yield running
    assert running.process.returncode == 0
    assert "Traceback" not in running.log()


def post(server: Server, path: str, status: int = 200, **body: object) -> dict[str, Any]:
    """Ask, and return the answer."""
    response = server.http.post(path, json=body)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ready(server: Server, store: str, *, again: bool = False) -> dict[str, Any]:
    """Return the state of a map once it has been read."""
    state = post(server, "/map", store=store, again=again)
    while state["state"] == "reading":
        state = post(server, "/map", store=store)
    return state


def processes(server: Server) -> list[psutil.Process]:
    """Return the processes that hold maps."""
    found = []
    for each in server.workers():
        with suppress(psutil.Error):
            if "emberd.atlas" in each.cmdline():
                found.append(each)
    return found


def test_points_texts_and_components_of_a_store(
    mapped: Server, home: tuple[Path, dict[str, Matrix]]
) -> None:
    state = ready(mapped, "notes")

    assert (state["rows"], state["points"], state["dimensions"]) == (ROWS, ROWS, 64)
    assert (state["sampled"], state["unusable"], state["groups"]) == (False, 0, [])
    assert state["candidates"] == ["old", "new"]
    points = mapped.http.get("/map/points", params={"store": "notes"})
    assert points.headers["x-emberd-map"] == state["map"]
    assert len(points.content) == 10 * ROWS
    places = np.frombuffer(points.content[: 8 * ROWS], "<f4").reshape(ROWS, 2)
    centred = home[1]["old"] - home[1]["old"].mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False)
    assert np.allclose(np.linalg.norm(places, axis=0), values[:2], rtol=1e-3)
    assert not any(points.content[8 * ROWS :])

    found = post(mapped, "/map/texts", store="notes", rows=[2, 0])
    assert found == {
        "map": state["map"],
        "rows": [
            {"row": 2, "key": 3, "text": HOSTILE[2][:300]},
            {"row": 0, "key": 1, "text": HOSTILE[0]},
        ],
    }

    sample = mapped.http.get("/map/components", params={"store": "notes", "rows": 100})
    count = int(sample.headers["x-emberd-components"])
    assert (sample.headers["x-emberd-rows"], count) == ("100", 50)
    rows = np.frombuffer(sample.content[:400], "<u4")
    components = np.frombuffer(sample.content[400:], "<f4").reshape(100, count)
    assert np.array_equal(components[:, :2], places[rows])


@pytest.mark.parametrize("store", ["notes", "int8", "bits"])
def test_a_search_finds_the_text_itself(mapped: Server, store: str) -> None:
    state = ready(mapped, store)

    found = post(mapped, "/map/search", store=store, text=texts()[700], count=5)

    assert (found["map"], found["model"]) == (state["map"], "old")
    assert len(found["rows"]) == 5
    first = found["rows"][0]
    assert (first["row"], first["key"], first["text"]) == (700, 701, texts()[700])
    assert first["cosine"] > (0.9 if store == "bits" else 0.999)


def test_a_mixed_store_is_seen(mapped: Server) -> None:
    ready(mapped, "mixed")
    state = post(mapped, "/map/check", store="mixed")
    assert state["check"]

    state = wait_for(lambda: _checked(mapped, "mixed"))

    points = {group["model"]: group["points"] for group in state["groups"]}
    assert points == {"old": ROWS - OF_NEW, "new": OF_NEW}
    assert state["check_error"] is None
    raw = mapped.http.get("/map/points", params={"store": "mixed"}).content
    groups = np.frombuffer(raw[8 * ROWS : 9 * ROWS], "u1")
    names = [None, *(group["model"] for group in state["groups"])]
    assert [names[group] for group in groups] == ["old"] * (ROWS - OF_NEW) + ["new"] * OF_NEW
    assert sum(raw[9 * ROWS :]) == state["checkable"]
    assert {mapped.row(name)["state"] for name in ("new",)} == {"cold"}  # as it was before


def _checked(server: Server, store: str) -> dict[str, Any] | None:
    state = post(server, "/map", store=store)
    return None if state["check"] else state


def test_how_many_components_are_wanted_is_a_number(mapped: Server) -> None:
    ready(mapped, "notes")
    for rows in ("0", "20001", "000000001" + "0" * 5000, "-1", "x"):
        params = {"store": "notes", "rows": rows}
        assert mapped.http.get("/map/components", params=params).status_code == 400


def test_what_cannot_be_mapped_says_why(mapped: Server) -> None:
    assert post(mapped, "/map", 404, store="none")["code"] == "not_a_store"
    while (response := mapped.http.post("/map", json={"store": "gone"})).status_code == 200:
        pass
    assert response.status_code == 404
    assert "gone.db" in response.json()["detail"]
    assert response.json()["hint"]
    assert post(mapped, "/map/texts", 400, store="notes", rows=[ROWS])["code"] == "bad_option"
    assert post(mapped, "/map/texts", 400, store="notes", rows=[-1])["code"] == "bad_option"
    assert post(mapped, "/map/search", 422, store="notes", text="a", count=0)["hint"]
    for path in ("/map/points", "/map/components?store=notes&rows=0", "/map/components?rows=1"):
        assert mapped.http.get(path).status_code == 400
    assert mapped.http.get("/map/points?store=odd").status_code == 404  # GET begins nothing

    ready(mapped, "other")
    wrong = post(mapped, "/map/search", 400, store="other", text="a")
    assert "7" in wrong["detail"]
    post(mapped, "/map/check", store="other")
    state = wait_for(lambda: _checked(mapped, "other"))
    assert "7 dimensions" in state["check_error"]["message"]


def test_a_locked_store_is_a_clear_problem(
    mapped: Server, home: tuple[Path, dict[str, Matrix]]
) -> None:
    database = apsw.Connection(str(home[0] / "empty" / "memories.db"))
    database.pragma("journal_mode", "delete")
    database.pragma("locking_mode", "exclusive")
    database.execute("BEGIN EXCLUSIVE")
    try:
        while (response := mapped.http.post("/map", json={"store": "empty"})).status_code == 200:
            assert response.json()["state"] == "reading"
    finally:
        database.close()
    assert response.status_code == 503
    assert response.json()["code"] == "store_busy"
    assert ready(mapped, "empty")["points"] == 0


def test_rows_that_cannot_be_placed_are_counted(mapped: Server) -> None:
    state = ready(mapped, "odd")

    assert (state["rows"], state["points"], state["unusable"]) == (20, 18, 2)


def test_at_most_two_maps_are_held_and_a_map_can_be_read_anew(mapped: Server) -> None:
    first = ready(mapped, "notes")
    ready(mapped, "mixed")
    assert ready(mapped, "notes")["map"] == first["map"]
    wait_for(lambda: len(processes(mapped)) == 2)

    ready(mapped, "odd")  # mixed was asked for longest ago
    wait_for(lambda: len(processes(mapped)) == 2)
    assert mapped.http.get("/map/points?store=mixed").status_code == 404
    again = ready(mapped, "notes", again=True)
    assert again["map"] != first["map"]
    wait_for(lambda: len(processes(mapped)) == 2)


def test_a_map_whose_process_dies_is_read_again(mapped: Server) -> None:
    before = ready(mapped, "notes")
    held = next(each for each in processes(mapped) if "notes" in each.cmdline())
    held.kill()
    wait_for(lambda: mapped.http.get("/map/points?store=notes").status_code == 404)

    assert post(mapped, "/map/texts", store="notes", rows=[5])["map"] != before["map"]


def test_a_map_that_is_read_anew_leaves_no_question_without_an_answer(mapped: Server) -> None:
    ready(mapped, "notes")
    with ThreadPoolExecutor(3) as threads:
        for _ in range(8):
            asked = [
                threads.submit(mapped.http.get, "/map/components", params={"store": "notes"})
                for _ in range(3)
            ]
            ready(mapped, "notes", again=True)

            assert all(each.result(timeout=30).status_code for each in asked)


def test_a_check_that_is_asked_for_twice_runs_once(mapped: Server) -> None:
    def embeds() -> int:
        return mapped.log().count('"route":"/embed"')

    ready(mapped, "mixed")
    worker = psutil.Process(post(mapped, "/load", model="old")["pid"])
    counts = []
    for times in (1, 3):
        before = embeds()
        worker.suspend()  # so that no check ends before it is asked for again
        try:
            for _ in range(times):
                post(mapped, "/map/check", store="mixed")
        finally:
            worker.resume()
        wait_for(lambda: _checked(mapped, "mixed"))
        counts.append(embeds() - before)

    assert counts[0] == counts[1] > 0


def test_a_map_ends_when_nobody_asks(home: tuple[Path, dict[str, Matrix]], tmp_path: Path) -> None:
    with Server(tmp_path / "idle", config=_config(home[0]), entry="tests.atlas.soon") as one:
        ready(one, "notes")  # it is held, perhaps no longer now
        wait_for(lambda: not processes(one))
        assert one.process.poll() is None


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_map_ends_with_the_server_however_that_ends(
    home: tuple[Path, dict[str, Matrix]], tmp_path: Path, end: signal.Signals
) -> None:
    with Server(tmp_path / "home", config=_config(home[0])) as one:
        ready(one, "notes")
        (held,) = processes(one)
        os.kill(one.process.pid, end)
        one.process.wait(30)
        wait_for(lambda: has_ended(held))


def test_a_stop_does_not_wait_for_a_map_that_is_read(
    home: tuple[Path, dict[str, Matrix]], tmp_path: Path
) -> None:
    with Server(tmp_path / "stopped", config=_config(home[0])) as one:
        post(one, "/map", store="notes")
        began_s = time.monotonic()
        assert one.stop() == 0
        assert time.monotonic() - began_s < 8


def _config(home: Path) -> str:
    """Return the configuration of another home for the same stores."""
    said = (home / "config.yaml").read_text()
    return said.replace("{path: ", f"{{path: {home}/").replace(f"{home}//", "/")


def test_what_a_map_answers_counts_among_the_bytes_that_requests_hold(
    home: tuple[Path, dict[str, Matrix]], tmp_path: Path
) -> None:
    config = f"{_config(home[0])}limits: {{max_queued_bytes: 8KiB}}\n"
    begun = (
        b"POST /embed HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    with Server(tmp_path / "home", config=config) as one:
        ready(one, "notes")
        host, port = one.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as other:
            other.sendall(begun)
            wait_for(lambda: "emberd_held_bytes 1.0" in one.http.get("/metrics").text)
            refused = one.http.get("/map/points?store=notes")
            few = post(one, "/map/texts", store="notes", rows=[5])
        wait_for(lambda: "emberd_held_bytes 0.0" in one.http.get("/metrics").text)
        whole = one.http.get("/map/points?store=notes")

    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert refused.json()["hint"].endswith("limits.max_queued_bytes.")
    assert few["rows"][0]["row"] == 5
    assert (whole.status_code, len(whole.content)) == (200, 10 * ROWS)


def test_no_text_of_a_store_or_a_search_is_logged(mapped: Server) -> None:
    ready(mapped, "notes")
    post(mapped, "/map/texts", store="notes", rows=[0, 1])
    post(mapped, "/map/search", store="notes", text="a-secret-that-nobody-may-see")

    assert "a-secret" not in mapped.log()
    assert "<script>" not in mapped.log()
