"""Tokens and texts are nowhere that others look: arguments, logs, errors, shown settings, files."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.api.guarded import OWN, TOKENS, bearer, start
from tests.hub import Answer, Hub
from tests.serving import Server, run_emberd, wait_for

GUESS = "a-token-that-somebody-guessed"
HUB_TOKEN = "hf_aSecretThatOnlyTheHubKnows"  # noqa: S105
PASSWORD = "a-password-in-an-address"  # noqa: S105
SECRETS = (*TOKENS, OWN, GUESS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was asked in every way, also wrongly."""
    with start(tmp_path_factory.mktemp("s"), forked=False) as server:
        for token in SECRETS:
            server.http.post("/embed", json={"texts": ["a"]}, headers=bearer(token))
            server.http.get("/nowhere", headers={"authorization": f"Basic {token}"})
            server.http.get(f"/models?token={token}", headers=bearer(token + "x"))
        yield server


def processes(server: Server) -> list[psutil.Process]:
    mine = psutil.Process(server.process.pid)
    return [mine, *mine.children(recursive=True)]


def test_no_token_is_in_an_argument(guarded: Server) -> None:
    found = processes(guarded)

    assert len(found) >= 2  # a worker, too
    for process in found:
        shown = " ".join([process.name(), *process.cmdline()])
        assert not [secret for secret in SECRETS if secret in shown]


def test_no_token_is_in_a_log_or_in_a_file_of_ours(guarded: Server) -> None:
    wait_for((guarded.home / "state" / "lock.json").exists)  # it is written beside the first answer
    files = [file for file in guarded.home.rglob("*") if file.is_file() and file.name != "tokens"]

    assert {"server.log", "emberd.log", "server.json", "lock.json"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert not [secret for secret in SECRETS if secret.encode() in content], file


@pytest.mark.parametrize(
    "command",
    [
        ("config", "show", "--all"), ("config", "show"), ("config", "check"),
        pytest.param(("doctor", "--json"), marks=pytest.mark.slow), ("doctor",), ("ps", "--json"),
        ("list", "--json"), ("service", "status", "--json"), ("service", "install", "--dry-run"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_no_command_shows_a_token(guarded: Server, command: tuple[str, ...]) -> None:
    done = guarded.run(*command)
    shown = done.stdout + done.stderr

    assert shown
    assert not [secret for secret in SECRETS if secret.encode() in shown]


@pytest.mark.parametrize("path", ["/health", "/models", "/reload", "/metrics", "/openapi.json"])
def test_no_answer_shows_a_token(guarded: Server, path: str) -> None:
    for headers in (bearer(OWN), bearer(GUESS)):
        text = guarded.http.get(path, headers=headers).text
        assert not [secret for secret in SECRETS if secret in text]


def test_state_is_ours_alone(guarded: Server) -> None:
    state = guarded.home / "state"

    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ("server.json", "server.flock", "lock.json"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((guarded.home / "s").stat().st_mode) == 0o600
    assert stat.S_IMODE((guarded.home / "emberd.log").stat().st_mode) == 0o600


@pytest.mark.slow
def test_state_is_ours_alone_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        with Server(home) as own:
            own.embed("a text")
    finally:
        os.umask(before)

    assert stat.S_IMODE((home / "state").stat().st_mode) == 0o700
    for file in (home / "state").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == (0o700 if file.is_dir() else 0o600), file


# -- the Hub's token ------------------------------------------------------------------------

MINE = {"models": {"mine": {"sources": [{"hf": "me/mine"}], "dimensions": 8, "pooling": "mean"}}}


def echo(status: int, code: str) -> Answer:
    """Return a refusal that repeats what it was told, as a proxy's page may."""
    said = f"Bearer {HUB_TOKEN} at {PASSWORD}"
    headers = {"X-Error-Code": code, "X-Error-Message": said, "Content-Type": "application/json"}
    return Answer(status, json.dumps({"error": said}).encode(), headers)


REFUSALS = {
    "gated": echo(403, "GatedRepo"), "private": echo(401, "RepoNotFound"), "refused": echo(401, ""),
    "forbidden": echo(403, ""), "no revision": echo(404, "RevisionNotFound"), "busy": echo(429, ""),
    "broken": echo(500, ""), "nonsense": Answer(200, HUB_TOKEN.encode()),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
def test_the_hubs_token_and_address_are_not_repeated(home: Path, refusal: Answer) -> None:
    with Hub({"me/mine": {}}) as hub:
        hub.answer_instead = lambda _method, _path: refusal
        address = hub.url.replace("//", f"//me:{PASSWORD}@")
        environ = {
            "HF_TOKEN": HUB_TOKEN, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        with Server(home, config=json.dumps(MINE), environ=environ) as own:
            failed = own.http.post("/embed", json={"texts": ["a"], "model": "mine"})
            pulled = own.run("pull", "mine")
            doctor = own.run("doctor", "--json")
            rows: dict[str, Any] = own.http.get("/models").json()
            commands = [process.cmdline() for process in processes(own)]

    assert hub.requests
    assert failed.status_code == 503
    assert pulled.returncode == 1
    everything = [
        failed.text, json.dumps(rows), own.log(), str(commands),
        *((done.stdout + done.stderr).decode() for done in (pulled, doctor)),
    ]  # fmt: skip
    for text in everything:
        assert HUB_TOKEN not in text
        assert PASSWORD not in text


def test_a_token_is_not_taken_as_an_argument(home: Path) -> None:
    done = run_emberd("serve", "--token", OWN, home=home)

    assert done.returncode == 2
    assert b"No such option" in done.stderr
