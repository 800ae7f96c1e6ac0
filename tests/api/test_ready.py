"""`GET /ready`: what a balancer is told, without loading anything, and without a token."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.api.guarded import TOKENS, bearer
from tests.serving import Server, wait_for

CONFIG = """
default: tiny
aliases: {{nickname: "other:query"}}
models:
  tiny: {{sources: [{{path: {model}}}], dimensions: 64, pooling: mean, matryoshka: [32]}}
  other: {{sources: [{{path: {model}}}], dimensions: 64, pooling: cls}}
  missing: {{sources: [{{path: {model}-not-there}}], dimensions: 64, pooling: cls}}
limits: {{idle_unload: 1h}}
"""


def start(home: Path, *, more: str = "", environ: dict[str, str] | None = None) -> Server:
    """Return a server with a model in `home/model`, which is made if it is not there yet."""
    if not (home / "model").exists():
        tiny_bert(home / "model")
    config = CONFIG.format(model=home / "model") + more
    return Server(home, config=config, environ=environ)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("ready")) as server:
        yield server


def asked(server: Server, **query: str) -> tuple[int, str]:
    """Return status and code of `/ready`."""
    response = server.http.get("/ready", params=query)
    said = response.json()
    return response.status_code, said.get("code") or said["status"]


def test_without_a_question_it_is_whether_the_server_takes_work(served: Server) -> None:
    assert asked(served) == (200, "ready")


def test_a_space_is_known_once_the_model_was_loaded_and_stays_known(home: Path) -> None:
    with start(home) as server:
        assert asked(server, model="tiny") == (200, "ready")
        assert asked(server, model="tiny", fingerprint="0" * 16) == (503, "not_served")
        space = server.embed("a cat")["fingerprint"]
        assert asked(server, model="tiny", fingerprint=space) == (200, "ready")
        assert asked(server, fingerprint=space) == (200, "ready")
        assert asked(server, model="tiny", fingerprint="0" * 16) == (503, "not_served")
        wait_for(lambda: server.row("tiny")["files_bytes"])
        server.http.post("/unload")

        assert asked(server, model="tiny", fingerprint=space) == (200, "ready")
        assert server.row("tiny")["state"] == "cold"
    with start(home) as again:
        assert asked(again, model="tiny", fingerprint=space) == (200, "ready")
        assert again.row("tiny")["loads"] == 0


@pytest.mark.parametrize("what", ["files", "entry"])
def test_a_model_that_was_swapped_is_not_what_it_was(home: Path, what: str) -> None:
    with start(home) as server:
        space = server.embed("a cat")["fingerprint"]
    if what == "files":
        shutil.rmtree(home / "model")
        tiny_bert(home / "model", seed=2)
    config = CONFIG if what == "files" else CONFIG.replace("pooling: mean", "pooling: cls")
    with Server(home, config=config.format(model=home / "model")) as swapped:
        before = asked(swapped, model="tiny", fingerprint=space)
        new = swapped.embed("a cat")["fingerprint"]

        assert before == (503, "not_served")
        assert new != space
        assert asked(swapped, model="tiny", fingerprint=space) == (503, "not_served")
        assert asked(swapped, model="tiny", fingerprint=new) == (200, "ready")


@pytest.mark.parametrize(
    "options",
    [
        {"dimensions": 32},
        {"output_dtype": "int8"},
        {"output_dtype": "ubinary", "dimensions": 32},
        {"chunk": {"size": 5, "late": True}},
        {"chunk": {"size": 5, "late": True}, "output_dtype": "float16"},
    ],
)
def test_every_space_that_a_request_can_expect_is_one_that_can_be_asked_for(
    served: Server, options: dict[str, object]
) -> None:
    space = served.embed("a cat eats", model="tiny", **options)["fingerprint"]

    assert space != served.embed("a cat eats", model="tiny")["fingerprint"]
    assert asked(served, model="tiny", fingerprint=space) == (200, "ready")
    assert asked(served, model="other", fingerprint=space) == (503, "not_served")


def test_names_are_those_of_requests(served: Server) -> None:
    space = served.embed("a cat", model="other")["fingerprint"]

    assert asked(served, model="nickname", fingerprint=space) == (200, "ready")
    assert asked(served, model="other:document") == (200, "ready")
    assert asked(served, model="missing") == (503, "not_served")
    assert asked(served, model="nobody") == (404, "unknown_model")


def test_asking_is_no_activity(served: Server) -> None:
    space = served.embed("a cat")["fingerprint"]
    before = wait_for(lambda: served.row("tiny")["idle_s"])

    for _ in range(3):
        asked(served, model="tiny", fingerprint=space)
        asked(served, model="tiny", fingerprint="0" * 16)
    row = served.row("tiny")

    assert row["idle_s"] >= before
    assert row["loads"] == 1
    assert '"route":"/ready"' not in served.log().replace(" ", "")


def test_a_stranger_is_told_what_health_tells(home: Path) -> None:
    with start(home, environ={"EMBERD_TOKEN": TOKENS[0]}) as guarded:
        known = bearer(TOKENS[0])
        guarded.http.headers.update(known)
        spaces = {name: guarded.embed("a", model=name)["fingerprint"] for name in ("tiny", "other")}
        for header in known:
            del guarded.http.headers[header]

        assert guarded.http.get("/health").json()["fingerprint"] == spaces["tiny"]
        assert asked(guarded, model="tiny", fingerprint=spaces["tiny"]) == (200, "ready")
        refused = guarded.http.get("/ready", params={"model": "tiny", "fingerprint": "0" * 16})
        assert refused.status_code == 503
        assert spaces["tiny"] not in refused.text
        for name in ("other", "nickname", "nobody"):
            assert asked(guarded, model=name) == (401, "unauthorized"), name
        response = guarded.http.get("/ready", params={"model": "nickname"}, headers=known)
        assert response.status_code == 200


def test_a_server_that_leaves_says_so_first_and_still_answers(home: Path) -> None:
    with start(home, more="server: {grace: 20s}\n") as server:
        server.embed("a cat")
        os.kill(server.process.pid, signal.SIGTERM)
        wait_for(lambda: asked(server) == (503, "shutting_down"))

        assert server.embed("still here", cache=False)["model"] == "tiny"
        os.kill(server.process.pid, signal.SIGTERM)  # who cannot wait says it again
        assert server.process.wait(15) == 0


def test_a_mismatch_is_what_a_balancer_can_act_on(served: Server) -> None:
    headers = {"X-Emberd-Expect-Fingerprint": "0" * 16}
    body = {"input": "a", "model": "tiny"}
    direct = served.http.post("/v1/embeddings", json=body, headers=headers)
    headers["X-Emberd-Mismatch-Status"] = "503"
    balanced = served.http.post("/v1/embeddings", json=body, headers=headers)

    assert (direct.status_code, balanced.status_code) == (409, 503)
    for response in (direct, balanced):
        assert response.json()["error"]["code"] == "fingerprint_mismatch"
        assert response.headers["x-should-retry"] == "false"


def test_a_model_that_failed_is_ready_again_once_it_would_be_tried_again(home: Path) -> None:
    with start(home) as server:
        weights = home / "model" / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:100])

        def is_not_served() -> bool:
            assert server.http.post("/load", json={"model": "tiny"}).status_code == 500
            return asked(server, model="tiny") == (503, "not_served")

        wait_for(is_not_served)  # which it is for a second after its first failure
        weights.write_bytes(whole)

        wait_for(lambda: asked(server, model="tiny") == (200, "ready"))
        assert server.row("tiny")["state"] == "failed"  # nobody has asked for it
        server.embed("a cat")
