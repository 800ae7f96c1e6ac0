"""Jobs: real commands as children of a real server, on real models and stores."""

import json
import shlex
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from emberd.api.commands import MOST_RUNNING
from tests import jobs
from tests.faults.troubled import halted, loading_held, plugged, starts_held
from tests.migrate import stores
from tests.serving import Server, has_ended, wait_for

ROWS = 6000  # enough to be stopped between two batches


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with jobs.start(tmp_path_factory.mktemp("jobs") / "home", ROWS) as running:
        yield running


def commands(server: Server) -> list[psutil.Process]:
    """Return the child processes of a server that are jobs."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if "--progress" in child.cmdline():
                found.append(child)
    return found


def test_a_pull_checks_what_is_here_and_says_what_it_would_say_in_a_terminal(
    server: Server,
) -> None:
    row = jobs.run(server, "pull", model="old")

    (pulled,) = row["result"]["models"]
    assert (pulled["name"], pulled["status"]) == ("old", "here")
    assert (row["kind"], row["subject"], row["line"]) == ("pull", "old", "emberd pull old")
    assert (row["error"], row["progress"]) == (None, None)
    assert row["began_s"] < row["ended_s"]


def test_the_checks_of_verify_come_one_by_one(server: Server) -> None:
    with loading_held(server):
        began = jobs.begin(server, "verify", model="new")
        some = jobs.until(server, began["id"], lambda row: row["steps"])
    done = jobs.ended(server, began["id"])

    assert some["state"] == "running"
    assert len(some["steps"]) < len(done["steps"])
    assert some["result"] is None
    assert done["state"] == "done"
    assert [
        (row["check"], row["verdict"], row["detail"], row["advice"])
        for row in done["result"]["checks"]
    ] == [tuple(step.values()) for step in done["steps"]]
    assert ("files", "ok") in [(step["name"], step["verdict"]) for step in done["steps"]]


def events(lines: Iterator[str]) -> Generator[tuple[str, Any], None, None]:
    """Yield the events of a stream: name and data."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_who_watches_is_told_and_a_job_goes_on_when_nobody_does(server: Server) -> None:
    with (
        server.http.stream("GET", "/events") as watching,
        closing(events(watching.iter_lines())) as told,
    ):
        assert next(told)[0] == "hello"

        server.http.post("/unload", json={"model": "new"})
        with loading_held(server):
            began = jobs.begin(server, "plan", store="notes", to="new")
            seen = next(data for name, data in told if name == "job" and data["progress"])

    assert (seen["id"], seen["state"]) == (began["id"], "running")
    assert jobs.ended(server, began["id"])["state"] == "done"
    with server.http.stream("GET", "/events") as watching:
        name, hello = next(events(watching.iter_lines()))
    assert name == "hello"
    assert began["id"] in [row["id"] for row in hello["jobs"]]


def test_a_migration_is_planned_run_stopped_continued_and_undone(server: Server) -> None:
    path = server.home / "notes.db"
    before = stores.read(path, "vec_notes")
    planned = jobs.run(server, "plan", store="notes", to="new")["result"]
    assert (planned["status"], planned["rows"], planned["staged"]) == ("planned", ROWS, 0)
    assert planned["plan"]["disk_bytes"] > 0

    server.http.post("/unload", json={"model": "new"})
    with halted(server, after_rows=ROWS // 2):
        first = jobs.begin(server, "migrate", store="notes", to="new")
        jobs.until(server, first["id"], lambda row: (row["progress"] or {}).get("done"))
        stop = server.http.post("/jobs/stop", json={"id": first["id"]}).json()
        stopped = jobs.ended(server, first["id"])
    assert stop == {"stopping": [first["id"]]}
    assert (stopped["state"], stopped["result"]) == ("stopped", None)
    assert stopped["error"]["message"] == "It was stopped."
    assert first["line"] in stopped["error"]["hint"]
    assert (stores.read(path, "vec_notes")[1] == before[1]).all()
    assert stores_row(server, "notes")["staged"]

    moved = jobs.run(server, "migrate", store="notes", to="new")["result"]
    assert moved["status"] == "moved"
    assert 0 < moved["staged"] < ROWS
    assert moved["staged"] + moved["embedded"] == ROWS
    row = stores_row(server, "notes")
    assert (row["holds"]["model"], row["fits"], row["backups"]) == ("new", False, 1)
    assert not row["staged"]

    undone = jobs.run(server, "undo", store="notes")["result"]
    assert undone["from"] == "new"
    assert (stores.read(path, "vec_notes")[1] == before[1]).all()
    assert stores_row(server, "notes")["backups"] == 0


def stores_row(server: Server, name: str) -> dict[str, Any]:
    rows = server.http.get("/stores").json()["stores"]
    return next(row for row in rows if row["name"] == name)


def test_the_line_is_what_one_would_type(server: Server) -> None:
    row = jobs.run(server, "plan", store="letters", to="new")
    typed = shlex.split(row["line"])[1:]
    there = server.run(*typed, "--json")

    assert typed[-5:] == ["run", "letters", "--to", "new", "--dry-run"]
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["status"] == row["result"]["status"] == "planned"


def test_the_same_twice_and_too_many_are_refused(server: Server) -> None:
    about = [(kind, name) for kind in ("verify", "pull") for name in ("old", "new")]
    with starts_held(server):
        began = [jobs.begin(server, kind, model=name) for kind, name in about]
        again = server.http.post("/jobs", json={"kind": "verify", "model": "old"})
        other = server.http.post("/jobs", json={"kind": "check", "store": "notes"})

    assert len(began) == MOST_RUNNING
    assert (again.status_code, again.json()["code"]) == (409, "already_running")
    assert began[0]["line"] in again.json()["detail"]
    assert (other.status_code, other.json()["code"]) == (429, "queue_full")
    for row in began:
        assert jobs.ended(server, row["id"])["state"] == "done"
    assert jobs.run(server, "pull", model="old")["id"] not in [row["id"] for row in began]


def test_a_command_that_fails_says_why_and_what_to_do(server: Server) -> None:
    row = jobs.ended(server, jobs.begin(server, "check", store="lost")["id"])

    assert (row["state"], row["result"]) == ("failed", None)
    assert "lost.db" in row["error"]["message"]
    assert row["error"]["hint"]


def test_only_configured_stores_and_known_models_can_be_named(server: Server) -> None:
    for body, status, code in (
        ({"kind": "pull", "model": "none"}, 404, "unknown_model"),
        ({"kind": "migrate", "store": "notes", "to": "none"}, 404, "unknown_model"),
        ({"kind": "check", "store": "none"}, 400, "bad_option"),
        ({"kind": "check", "store": str(server.home / "notes.db")}, 400, "bad_option"),
        ({"kind": "check", "model": "old"}, 400, "bad_option"),
        ({"kind": "pull", "model": "old", "store": "notes"}, 400, "bad_option"),
        ({"kind": "pull", "model": "old", "to": "new"}, 400, "bad_option"),
        ({"kind": "rm", "model": "old"}, 400, "bad_option"),
        ({"kind": "pull", "model": "old", "update": True}, 422, "wrong_shape"),
        ({"model": "old"}, 422, "wrong_shape"),
    ):
        answer = server.http.post("/jobs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    gone = server.http.post("/jobs/stop", json={"id": "none"})
    assert (gone.status_code, gone.json()) == (200, {"stopping": []})


def test_an_odd_name_of_a_store_is_no_option(home: Path) -> None:
    config = 'stores: {"--sample=all": {path: none.db}, "a b; c": {path: none.db}}'
    with Server(home, config=config) as server:
        for name in ("--sample=all", "a b; c"):
            row = jobs.ended(server, jobs.begin(server, "check", store=name)["id"])

            assert row["state"] == "failed"
            assert "none.db" in row["error"]["message"]
            assert name in shlex.split(row["line"])


def test_a_default_that_a_flag_chose_is_that_of_the_commands_too(
    server: Server, home: Path
) -> None:
    home.mkdir()
    stores_of = server.home / "mixed.db"
    (home / "mixed.db").write_bytes(stores_of.read_bytes())
    environ, flags = {"PYTHONPATH": plugged(home)}, ("--port", "0", "--default", "new")
    with Server(home, config=jobs.CONFIG, environ=environ, arguments=flags) as other:
        assert jobs.run(other, "check", store="mixed")["result"]["default"] == "new"


@pytest.mark.parametrize("kind", ["verify", "migrate"])
def test_jobs_end_with_the_server_within_its_time(home: Path, kind: str) -> None:
    about = {"model": "new"} if kind == "verify" else {"store": "notes", "to": "new"}
    with jobs.start(home, 4000) as server:
        server.http.post("/unload", json={"model": "new"})
        with loading_held(server) if kind == "verify" else halted(server, after_rows=2000):
            began = jobs.begin(server, kind, **about)
            is_at_work = "steps" if kind == "verify" else "progress"
            jobs.until(server, began["id"], lambda row: row[is_at_work])
            (child,) = commands(server)
            below = child.children(recursive=True)
            assert server.stop() == 0
    for process in (child, *below):
        wait_for(lambda process=process: has_ended(process))  # type: ignore[misc]
    with pytest.raises(httpx2.TransportError):
        httpx2.get(server.url, trust_env=False)
