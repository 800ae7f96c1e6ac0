"""`POST /pin`: a model stays loaded, or no longer, until the server is restarted."""

from pathlib import Path

import httpx2
import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server, wait_for


def config_of(home: Path, limits: str) -> str:
    """Return a configuration with a model that its entry pins, and one that it does not."""
    tiny_bert(home / "model")
    tiny = f"sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean"
    models = f"{{tiny: {{{tiny}}}, kept: {{{tiny}, pinned: true}}}}"
    return f"default: tiny\nlimits: {limits}\nmodels: {models}\n"


def pin(server: Server, model: str, *, pinned: bool) -> httpx2.Response:
    """Pin a model or not."""
    return server.http.post("/pin", json={"model": model, "pinned": pinned})


def reload(server: Server, config: str) -> None:
    """Have it read another configuration."""
    (server.home / "config.yaml").write_text(config)
    assert server.http.post("/reload").status_code == 200


def test_a_pin_outlasts_idle_time_but_no_restart(home: Path) -> None:
    with Server(home, config=config_of(home, "{idle_unload: 0.5s}")) as server:
        assert pin(server, "tiny", pinned=True).json()["state"] == "cold"  # nothing is loaded by it
        server.embed("a", model="tiny")
        server.embed("a", model="kept")
        assert server.row("tiny")["unloads_in_s"] is None
        assert server.row("kept")["unloads_in_s"] is None

        pin(server, "kept", pinned=False)

        wait_for(lambda: server.row("kept")["state"] == "cold")
        assert server.row("tiny")["state"] == "ready"
        assert server.row("tiny")["pinned"]
        assert not server.row("kept")["pinned"]
    with Server(home) as again:
        assert (again.row("tiny")["pinned"], again.row("kept")["pinned"]) == (False, True)


def test_a_pinned_model_makes_no_room_for_another_until_it_may(home: Path) -> None:
    config = config_of(home, "{max_loaded: 1}")
    with Server(home, config=config) as server:
        server.embed("a", model="tiny")
        pin(server, "tiny", pinned=True)
        reload(server, config.replace("max_loaded: 1", "max_loaded: 1, request_timeout: 1s"))
        refused = server.http.post("/load", json={"model": "kept"})
        assert (refused.status_code, refused.json()["code"]) == (503, "no_room")
        reload(server, config)

        pin(server, "tiny", pinned=False)

        assert server.http.post("/load", json={"model": "kept"}).status_code == 200
        assert server.row("tiny")["state"] == "cold"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "minilm"}, 422, "wrong_shape"),
        ({"model": "minilm", "pinned": "perhaps"}, 422, "wrong_shape"),
        ({"model": "minilm", "pinned": True, "for": "ever"}, 422, "wrong_shape"),
        ({"pinned": True}, 422, "wrong_shape"),
        ({"model": "none-of-these", "pinned": True}, 404, "unknown_model"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    server: Server, body: dict[str, object], status: int, code: str
) -> None:
    answer = server.http.post("/pin", json=body)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
