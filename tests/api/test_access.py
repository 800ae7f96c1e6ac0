"""Who may use the server: tokens, Host, Origin, the Unix socket, and what the log says."""

import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from emberd.api.access import BearerTokens
from emberd.client.clients import Client
from emberd.config.tokens import read_token_file
from emberd.errors import ConfigError, UnauthorizedError
from tests.api.guarded import ORIGIN, OWN, TOKENS, bearer, by_socket, raw, start
from tests.serving import Server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with start(tmp_path_factory.mktemp("g")) as server:
        yield server
    assert not (server.home / "s").exists()  # removed at the end


@pytest.mark.parametrize("token", [*TOKENS, OWN])
def test_every_token_works(guarded: Server, token: str) -> None:
    assert guarded.http.get("/models", headers=bearer(token)).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer wrong", f"Bearer {TOKENS[0][:-1]}",
        f"Bearer {TOKENS[0]}x", f"Bearer {TOKENS[0]} {TOKENS[1]}", f"Basic {TOKENS[0]}", TOKENS[0],
        "Bearer # ours", "Bearer \xe9\xe9",
    ],
)  # fmt: skip
def test_nothing_else_does(guarded: Server, header: str | None) -> None:
    headers = [] if header is None else [(b"authorization", header.encode("latin-1"))]

    for path in ("/models", "/metrics", "/nowhere", "/openapi.json", "/health/../models"):
        response = guarded.http.get(path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized"), path
        assert response.headers["www-authenticate"] == "Bearer"


def test_a_dialect_refuses_in_its_own_shape(guarded: Server) -> None:
    response = guarded.http.post("/v1/embeddings", json={"input": "x", "model": "minilm"})

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_watchdogs_need_no_token(guarded: Server, path: str) -> None:
    assert guarded.http.get(path).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403), ("localhost.evil.example", 403), ("127.0.0.1.evil.example", 403),
        ("localhost:80@evil.example", 403), ("[::1", 403), ("localhost", 200), ("LOCALHOST:1", 200),
        ("127.0.0.1", 200), ("[::1]:8767", 200), ("embeddings.example", 200),
        ("host.docker.internal:8767", 200), ("gateway.docker.internal", 200),
        ("host.containers.internal", 200), ("Box.Internal.", 200), ("app.localhost:3000", 200),
        ("internal", 403), ("evilinternal", 403), ("a.internal.evil.example", 403),
        ("localhost.", 200), ("evillocalhost", 403), ("somebody-elses-box.local", 403),
    ],
)  # fmt: skip
def test_a_name_that_was_rebound_is_refused(guarded: Server, host: str, status: int) -> None:
    assert guarded.http.get("/health", headers={"host": host}).status_code == status


def test_this_machines_own_name_is_one(guarded: Server) -> None:
    short = socket.gethostname().partition(".")[0]

    for name in (socket.gethostname(), short, f"{short}.local", f"{short.upper()}.LOCAL.:8767"):
        assert guarded.http.get("/health", headers={"host": name}).status_code == 200, name
    for name in (f"not-{short}", f"{short}.evil.example", f"not-{short}.local"):
        assert guarded.http.get("/health", headers={"host": name}).status_code == 403, name


def line_in(hint: str) -> Any:  # noqa: ANN401 - whatever YAML holds
    """Return the parsed config line that a hint tells the user to write."""
    return yaml.safe_load(hint.split("`")[1])


@pytest.mark.slow
def test_a_hint_writes_the_line_that_lets_a_name_in(guarded: Server, home: Path) -> None:
    refused = guarded.http.get("/health", headers={"host": "Box_1.lan.example:8767"})

    hint = refused.json()["hint"]
    assert line_in(hint) == {
        "server": {"allowed_hosts": ["embeddings.example", "box_1.lan.example"]}
    }
    with Server(home, config=hint.split("`")[1]) as allowed:
        answer = allowed.http.get("/health", headers={"host": "box_1.lan.example"})
        assert answer.status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("origin", ["http://localhost:3001", "app://other", "http://[::1]:80"])
def test_a_hint_writes_the_line_that_lets_a_page_in(
    server: Server, origin: str, home: Path
) -> None:
    hint = server.http.get("/health", headers={"origin": origin}).json()["hint"]

    assert line_in(hint) == {"server": {"allowed_origins": [origin]}}
    with Server(home, config=hint.split("`")[1]) as allowed:
        assert allowed.http.get("/health", headers={"origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"host": "evil.example} x: {"}, {"host": 'a"b'}, {"host": "-"}, {"host": "x" * 300},
        {"origin": "null"}, {"origin": "https://a.example/`"}, {"origin": "https://a b"},
        {"origin": "x" * 300},
    ],
)  # fmt: skip
def test_a_hint_repeats_nothing_that_is_no_name(server: Server, header: dict[str, str]) -> None:
    refused = server.http.get("/health", headers=header)

    assert refused.status_code == 403
    assert "`" not in refused.json()["hint"]
    assert next(iter(header.values())) not in refused.text


def test_two_host_headers_are_refused(guarded: Server) -> None:
    answer = raw(guarded, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")

    assert answer.split()[1] in (b"400", b"403")


def test_an_allowed_page_gets_its_preflight_and_its_answer(guarded: Server) -> None:
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}

    preflight = guarded.http.options("/embed", headers=asks)
    answer = guarded.http.get("/models", headers={"origin": ORIGIN, **bearer(OWN)})
    refused = guarded.http.get("/models", headers={"origin": ORIGIN})

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    for response in (answer, refused):  # a page has to be able to read its error
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["vary"] == "Origin"
    assert (answer.status_code, refused.status_code) == (200, 401)


@pytest.mark.parametrize(
    "headers",
    [
        "authorization,content-type,x-stainless-arch,x-stainless-retry-count",
        "content-type,dangerously-allow-browser",
        "X-Emberd-Expect-Fingerprint",
    ],
)
def test_a_preflight_allows_the_headers_that_it_asks_for(guarded: Server, headers: str) -> None:
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}

    preflight = guarded.http.options(
        "/v1/embeddings", headers={**asks, "access-control-request-headers": headers}
    )
    without = guarded.http.options("/v1/embeddings", headers=asks)

    assert preflight.headers["access-control-allow-headers"] == headers
    assert "access-control-allow-headers" not in without.headers
    varies = {name.strip() for name in preflight.headers["vary"].lower().split(",")}
    assert {"origin", "access-control-request-headers", "access-control-request-method"} <= varies


@pytest.mark.parametrize(
    "origin",
    ["app://obsidian.md", "app://", "file://", "tauri://localhost", "https://pages.example"],
)
def test_apps_are_pages_once_they_are_listed(guarded: Server, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}

    preflight = guarded.http.options("/api/embed", headers=asks)
    answer = guarded.http.get("/api/tags", headers={"origin": origin, **bearer(OWN)})

    assert (preflight.status_code, answer.status_code) == (204, 200)
    assert preflight.headers["access-control-allow-origin"] == origin
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("origin", ["app://obsidian.md", "app://", "file://", "null"])
def test_no_app_is_allowed_unlisted(server: Server, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    preflight = server.http.options("/api/embed", headers=asks)
    answer = server.http.get("/api/tags", headers={"origin": origin})

    assert (preflight.status_code, answer.status_code) == (403, 403)
    assert not {name for name in answer.headers if name.startswith("access-control")}


def test_caches_tell_the_answers_of_pages_apart(guarded: Server, server: Server) -> None:
    """The browser would refuse a copy that it cached earlier, without permission."""
    assert guarded.http.get("/models", headers=bearer(OWN)).headers["vary"] == "Origin"
    assert "vary" not in server.http.get("/models").headers  # no page is allowed


def test_a_page_may_see_what_sdks_look_at(guarded: Server) -> None:
    answer = guarded.http.get("/models", headers={"origin": ORIGIN})

    exposed = answer.headers["access-control-expose-headers"].lower()
    assert {"retry-after", "x-should-retry", "x-request-id"} <= set(exposed.split(", "))


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "null", "http://localhost:3001", "", "app://other", "app:",
        "https://localhost:3000", "http://pages.example", "tauri://", "file:///home",
    ],
)  # fmt: skip
def test_other_pages_get_neither(guarded: Server, origin: str) -> None:
    asks = {"origin": origin, "access-control-request-method": "POST"}
    for response in (
        guarded.http.options("/embed", headers=asks),
        guarded.http.get("/health", headers={"origin": origin, **bearer(OWN)}),
    ):
        assert response.status_code == 403
        assert not {name for name in response.headers if name.startswith("access-control")}


def test_the_socket_is_ours_alone_and_knows_no_browsers(guarded: Server) -> None:
    with by_socket(guarded) as http:
        strange = {"host": "evil.example", "origin": "https://evil.example"}
        assert http.get("/models", headers={**strange, **bearer(OWN)}).status_code == 200
        assert http.get("/models").status_code == 401

    assert stat.S_IMODE((guarded.home / "s").stat().st_mode) == 0o600


def test_the_command_line_finds_socket_and_token(guarded: Server) -> None:
    done = guarded.run("load", "--json")

    assert json.loads(done.stdout)["state"] == "ready", done.stderr


def test_the_python_client_by_socket_and_by_url(guarded: Server) -> None:
    with Client(socket=guarded.home / "s", token=TOKENS[1]) as client:
        assert client.embed(["x"]).vectors.shape == (1, 384)
    with Client(guarded.url) as client, pytest.raises(UnauthorizedError):
        client.embed(["x"])


def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text("old")
    tokens = BearerTokens(None, file)

    file.write_text("newer\nnewest")
    assert [tokens.accepts(t) for t in ("old", "newer", "newest", "new", "")] == [0, 1, 1, 0, 0]
    file.write_text("# none")
    assert tokens.accepts("newest")
    file.unlink()
    assert tokens.accepts("newest")
    assert not tokens.accepts("old")


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("good", 0o644, "by others"), ("good", 0o640, "by others"), ("", 0o600, "no token"),
        ("# only\n\n", 0o600, "no token"), ("a secret phrase", 0o600, "tokens:1: "),
    ],
)  # fmt: skip
def test_a_token_file_that_is_not_safe(tmp_path: Path, text: str, mode: int, words: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)

    with pytest.raises(ConfigError, match=words) as raised:
        read_token_file(file)
    assert "secret" not in raised.value.message


def test_metrics_count_what_happened_and_make_no_labels_of_guesses(guarded: Server) -> None:
    http, ours = guarded.http, bearer(OWN)
    before = _metrics(guarded)
    http.post("/embed", json={"texts": ["one", "two " * 600]}, headers=ours)
    http.post("/embed", json={"texts": ["x"], "model": "guess-1"}, headers=ours)
    http.post("/v1/embeddings", json={"input": "x", "model": "minilm"}, headers=ours)
    http.get("/guess-2", headers=ours)
    http.get("/v1/models/guess-3", headers=ours)
    http.post("/unload", headers=ours)
    after = _metrics(guarded)

    def grew(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after[key] - before.get(key, 0)

    asked = {"route": "/embed", "dialect": "native"}
    assert grew("emberd_requests_total", **asked, model="minilm", status="200") == 1
    assert grew("emberd_requests_total", **asked, model="", status="404") == 1
    assert grew("emberd_texts_total", model="minilm") == 3
    assert grew("emberd_tokens_total", model="minilm") == 3 + 512 + 3
    assert grew("emberd_truncated_texts_total", model="minilm") == 1
    assert grew("emberd_batch_texts_total", model="minilm") == 3
    assert grew("emberd_batch_tokens_total", model="minilm") == 3 + 512 + 3
    assert grew("emberd_batch_fill_count", model="minilm") >= 2
    assert grew("emberd_unloads_total", model="minilm", reason="asked") == 1
    assert grew("emberd_stage_seconds_count", model="minilm", stage="model") == 2
    assert after["emberd_loads_total", frozenset({("model", "minilm")})] >= 1
    assert after["emberd_resident_models", frozenset()] == 0
    assert "guess" not in str(after)
    fingerprint = http.get("/health").json()["fingerprint"]
    info = {"model": "minilm", "fingerprint": fingerprint}
    assert after["emberd_model_info", frozenset(info.items())] == 1


def test_the_log_has_a_line_for_each_request_and_no_secret(guarded: Server) -> None:
    secret = "Rumpelstilzchen"  # noqa: S105 - a text
    answer = guarded.http.post("/embed", json={"texts": [secret]}, headers=bearer(OWN))
    guarded.http.get(f"/{secret}?token={secret}", headers=bearer(OWN))
    guarded.http.get("/models", headers=bearer(f"{secret}"))
    guarded.http.request(secret, "/models")

    files = sorted(guarded.home.glob("emberd.log*"))
    text = "".join(file.read_text() for file in files) + guarded.log()
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    requests = {line["id"]: line for line in lines if line["event"] == "request"}
    line = requests[answer.headers["x-request-id"]]
    assert (line["route"], line["method"], line["dialect"]) == ("/embed", "POST", "native")
    assert (line["status"], line["model"], line["texts"]) == (200, "minilm", 1)
    assert line["tokens"] > 2
    assert {"wait_ms", "queue_ms", "tokenize_ms", "model_ms", "encode_ms", "ms"} <= line.keys()
    for word in (secret, OWN, *TOKENS, str(answer.json()["embeddings"][0][0])):
        assert word not in text


def test_the_log_file_is_rotated_and_private(guarded: Server) -> None:
    for _ in range(300):
        guarded.http.get("/health")

    files = sorted(path.name for path in guarded.home.glob("emberd.log*"))
    assert files == ["emberd.log", "emberd.log.1", "emberd.log.2"]
    for name in files:
        assert (guarded.home / name).stat().st_size <= 20 * 1024
        assert stat.S_IMODE((guarded.home / name).stat().st_mode) == 0o600


def _metrics(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = server.http.get("/metrics", headers=bearer(OWN))
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
