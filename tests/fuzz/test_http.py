"""Requests of every kind to a real server: answered by the contract, and never at others' cost."""

import json
import socket
import string
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.cases import JSON, Damage, damages, fuzz
from tests.fuzz.talk import SECRET, Header, Request, Talk, read_reply
from tests.serving import Server

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
ENTRY = f"{{sources: [{{path: {TINY}}}], dimensions: 64, pooling: mean, matryoshka: [32]}}"
CONFIG = f"""
default: tiny
server: {{allowed_origins: ["http://localhost:3000"]}}
models: {{tiny: {ENTRY}, other: {ENTRY}}}
"""
OURS = (b"Content-Type", b"application/json")

TEXT = st.text(max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "\x00",
        "a\x00b",
        SECRET,
        f"{SECRET} " * 40,
        "€" * 50,
        "\ufeff",
        "\U0010ffff",
        "\ud800",
    ]
)
TEXTS = st.lists(TEXT, max_size=4) | TEXT
MODEL = st.sampled_from(["tiny", "tiny:latest", "tny", "", "nobody", "t" * 5000, None])
SIZE = st.sampled_from([64, 32, 0, -1, 63, 2**31, 2**63, 2**64, 10**400, None, 64.0, True])
FLAG = st.sampled_from([True, False, None])
KIND = st.sampled_from(["query", "document", "passage", None])
COMMON: dict[str, st.SearchStrategy[Any]] = {"model": MODEL, "dimensions": SIZE, "truncate": FLAG}
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "/embed": {
        **COMMON, "texts": TEXTS, "inputs": TEXTS, "input_type": KIND, "fingerprint": TEXT,
        "encoding": st.sampled_from(["float", "base64", "hex", None]),
        "normalize": FLAG, "prompt_name": KIND,
    },
    "/v1/embeddings": {
        **COMMON, "input": TEXTS, "input_type": KIND, "user": TEXT,
        "encoding_format": st.sampled_from(["float", "base64", "hex", None]),
    },
    "/embeddings": {**COMMON, "input": TEXTS},
    "/api/embed": {**COMMON, "input": TEXTS, "keep_alive": JSON, "options": JSON},
    "/api/embeddings": {**COMMON, "prompt": TEXT},
    "/": {
        **COMMON, "inputs": TEXTS, "normalize": FLAG, "prompt_name": KIND,
        "truncation_direction": st.sampled_from(["right", "Right", "left"]),
    },
    "/tokenize": {**COMMON, "inputs": TEXTS, "add_special_tokens": FLAG, "prompt_name": KIND},
    "/api/show": {"model": MODEL, "name": MODEL},
}  # fmt: skip
MANAGING: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "/load": {"model": MODEL},
    "/unload": {
        "model": st.sampled_from(["other", "nobody", 3])
    },  # what is loaded again takes long
    "/reload": {},
}
EVERYWHERE = st.sampled_from([*FIELDS, "/load", "/reload"])


def write(value: object, *, as_ascii: bool = True) -> bytes:
    """Return JSON; without `as_ascii` half a surrogate pair becomes what no UTF-8 is."""
    text = json.dumps(value, ensure_ascii=as_ascii)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def bodies(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[Any]]) -> bytes:
    """Return an object with the right keys, nearly; some twice, some with odd values."""
    right = st.one_of([st.tuples(st.just(key), value) for key, value in fields.items()])
    wrong = st.tuples(st.sampled_from(list(fields)), JSON) | st.tuples(st.text(max_size=9), JSON)
    pairs = draw(st.lists(right, max_size=5)) + draw(st.lists(wrong, max_size=1))
    inner = (write(key) + b":" + write(value, as_ascii=draw(st.booleans())) for key, value in pairs)
    return b"{" + b",".join(inner) + b"}"


@st.composite
def embedding(draw: st.DrawFn) -> Request:
    """Return a request for vectors or tokens that is nearly right."""
    path = draw(st.sampled_from(list(FIELDS)))
    return Request("POST", path.encode(), (OURS,), draw(bodies(FIELDS[path])))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose default is a tiny model."""
    with Server(tmp_path_factory.mktemp("fuzz"), config=CONFIG) as running:
        running.embed("warm")
        yield running


@pytest.fixture
def talk(server: Server) -> Iterator[Talk]:
    """Talk to it; afterwards it is as it was: same process, same vector, nothing odd in its log."""
    expected = server.embed("a control")
    logged = len(server.log())
    talking = Talk(server)
    yield talking
    talking.close()
    assert server.process.poll() is None
    assert server.embed("a control") == expected
    log = server.log()[logged:]
    for word in ("Traceback", '"level":"error"', "emberd failed", "panicked", SECRET):
        assert word not in log
    assert server.row("tiny")["in_flight"] == server.row("tiny")["queued"] == 0


@fuzz(embedding())
def test_requests_that_are_nearly_right(talk: Talk, request: Request) -> None:
    reply = talk.ask(request)

    if reply.status == 200:
        assert reply.json is not None


@fuzz(EVERYWHERE, JSON, st.booleans())
def test_any_json(talk: Talk, path: str, data: object, as_ascii: bool) -> None:
    talk.ask(Request("POST", path.encode(), (OURS,), write(data, as_ascii=as_ascii)))


@fuzz(embedding(), damages())
def test_bodies_that_were_damaged(talk: Talk, request: Request, damage: Damage) -> None:
    talk.ask(Request("POST", request.target, request.headers, damage(request.body or b"")))


@fuzz(EVERYWHERE, st.binary(max_size=60))
def test_any_bytes_as_a_body(talk: Talk, path: str, body: bytes) -> None:
    talk.ask(Request("POST", path.encode(), (OURS,), body))


@fuzz(
    EVERYWHERE,
    st.sampled_from([b"[", b'{"a":', b'{"texts":[', b"[{},"]),
    st.integers(1, 5000),
    st.sampled_from([b"", b"]", b"1", b"}"]),
)
def test_bodies_that_are_nested_deep(
    talk: Talk, path: str, opening: bytes, depth: int, closing: bytes
) -> None:
    talk.ask(Request("POST", path.encode(), (OURS,), opening * depth + closing * depth))


VALUE = st.text(
    alphabet=st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60
).map(lambda value: value.strip().encode("latin-1"))
MEDIA = st.sampled_from([
    b"application/json", b"application/json; charset=utf-8", b"APPLICATION/JSON ;x", b"text/plain",
    b"application/vnd.x+json", b"multipart/form-data; boundary=x", b"application/json, text/html",
    b"application/x-www-form-urlencoded", b"",
])  # fmt: skip
ACCEPT = st.sampled_from([
    b"*/*", b"application/octet-stream", b"application/x-npy", b"application/json;q=0",
    b"application/openmetrics-text", b"application/openmetrics-text; version=1.0.0",
    b"text/plain; version=1.0.0; escaping=allow-utf-8", b"text/plain;version=;q=x",
    b"application/openmetrics-text;version=9.x", b"text/plain; version=1e9", b",;=,;",
])  # fmt: skip
HEADERS: st.SearchStrategy[Header] = (
    st.tuples(st.just(b"Accept"), ACCEPT | VALUE)
    | st.tuples(st.just(b"Content-Type"), MEDIA | VALUE)
    | st.tuples(st.just(b"Content-Encoding"), st.sampled_from([b"gzip", b"identity", b"br,gzip"]))
    | st.tuples(st.just(b"Connection"), st.sampled_from([b"close", b"keep-alive", b"x, Upgrade"]))
    | st.tuples(st.just(b"Upgrade"), st.sampled_from([b"websocket", b"h2c", b"x/1"]))
    | st.tuples(st.just(b"Host"), st.sampled_from([b"[::1", b"evil.example", b"localhost:x", b""]))
    | st.tuples(st.just(b"X-Emberd-Expect-Fingerprint"), VALUE)
    | st.tuples(
        st.sampled_from([
            b"Authorization", b"Origin", b"Cookie", b"Range", b"If-Match", b"Forwarded",
            b"Accept-Encoding", b"X-Forwarded-For", b"Access-Control-Request-Method",
            b"X-HTTP-Method-Override",
        ]),
        VALUE | st.sampled_from([b"Bearer x", b"http://localhost:3000", b"null", b"x" * 20_000]),
    )
)  # fmt: skip
HARMLESS = {
    b"Accept", b"Connection", b"Upgrade", b"Authorization", b"Cookie", b"Range", b"If-Match",
    b"Forwarded", b"Accept-Encoding", b"X-Forwarded-For", b"Access-Control-Request-Method",
    b"X-HTTP-Method-Override",
}  # fmt: skip
GOOD = {
    path: write({key: ["a text"] if key != "prompt" else "a text"})
    for path, key in {
        "/embed": "texts", "/v1/embeddings": "input", "/api/embed": "input",
        "/api/embeddings": "prompt", "/": "inputs", "/tokenize": "inputs",
    }.items()
}  # fmt: skip


@fuzz(st.sampled_from(list(GOOD)), st.lists(HEADERS, max_size=4))
def test_odd_headers(talk: Talk, path: str, headers: Sequence[Header]) -> None:
    media = () if any(name == b"Content-Type" for name, _ in headers) else (OURS,)
    reply = talk.ask(Request("POST", path.encode(), (*media, *headers), GOOD[path]))

    if {name for name, _ in headers} <= HARMLESS:
        assert reply.status == 200, (headers, reply)


@fuzz(
    st.sampled_from(list(GOOD)),
    st.lists(st.integers(1, 9), max_size=8),
    st.lists(HEADERS.filter(lambda header: header[0] != b"Host"), max_size=2),
)
def test_chunked_bodies(
    talk: Talk, path: str, chunks: Sequence[int], trailers: Sequence[Header]
) -> None:
    trailer = b"".join(b"%b: %b\r\n" % header for header in trailers)
    request = Request("POST", path.encode(), (OURS,), GOOD[path], tuple(chunks), trailer)

    assert talk.ask(request).status == 200


@st.composite
def managing(draw: st.DrawFn) -> Request:
    """Return a request to the routes that change something."""
    path = draw(st.sampled_from(list(MANAGING)))
    fields = MANAGING[path] or {"model": MODEL}
    body = draw(st.none() | bodies(fields)) if path != "/unload" else draw(bodies(fields))
    return Request("POST", path.encode(), (OURS,), body)


@fuzz(managing().filter(lambda request: request.body != b"{}" or request.target != b"/unload"))
def test_loading_unloading_and_reloading(talk: Talk, request: Request) -> None:
    talk.ask(request)


PLACES = st.sampled_from([
    "/", "/embed", "/health", "/ready", "/models", "/metrics", "/openapi.json", "/info", "/reload",
    "/v1", "/v1/models", "/v1/models/", "/v1/models/tiny", "/api/tags", "/api/ps", "/api/version",
    "/api/show", "/unload",
])  # fmt: skip
ODD = st.text(alphabet=string.ascii_letters + "/.%?#&=;:@[]*~|+-_ \\é", max_size=12)


@fuzz(
    st.sampled_from(["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "M-SEARCH"]),
    PLACES,
    ODD | st.text(max_size=3),
    st.lists(HEADERS, max_size=2),
)
def test_any_path_and_method(
    talk: Talk, method: str, place: str, odd: str, headers: Sequence[Header]
) -> None:
    escaped = "".join(c if c in "/.%?&=;:@*~|+-_" or (c.isascii() and c.isalnum()) else "".join(
        f"%{byte:02x}" for byte in c.encode("utf-8", "surrogatepass")) for c in odd)  # fmt: skip
    talk.ask(Request(method, (place + escaped).encode(), tuple(headers)))


def answers_until_the_end(connection: socket.socket, method: str) -> int:
    """Read answers as long as some come; return how many did. All have to be whole."""
    count = 0
    while True:
        first = connection.recv(1, socket.MSG_PEEK)
        if not first:
            return count
        reply = read_reply(connection, method)
        assert reply.status < 500 and reply.status != 429, reply
        assert reply.status < 400 or reply.json
        count += 1
        if reply.closes:
            return count


def send_raw(talk: Talk, content: bytes) -> None:
    """Send bytes and no more; the server answers or hangs up, and does not wait."""
    with talk.connect() as connection, suppress(ConnectionError):
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        answers_until_the_end(connection, content.partition(b" ")[0].decode("latin-1"))


@fuzz(st.sampled_from(list(GOOD)), damages())
def test_requests_that_were_damaged(talk: Talk, path: str, damage: Damage) -> None:
    send_raw(talk, damage(Request("POST", path.encode(), (OURS,), GOOD[path]).to_bytes()))


LINES = st.sampled_from([
    b"GET / HTTP/1.1", b"GET /ready HTTP/1.0", b"GET  /x HTTP/1.1", b"get / HTTP/1.1", b"GET /",
    b"POST * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET http://e/ HTTP/1.1",
    b"GET //evil/ready HTTP/1.1", b"GET /x?\xff HTTP/1.1", b"GET /\xff HTTP/1.1", b"PRI * HTTP/2.0",
    b"GET / HTTP/9.9", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /\x00 HTTP/1.1", b"",
    b"POST /embed HTTP/1.1", b"Host: localhost", b"Content-Length: 5", b"Content-Length: -1",
    b"Content-Length: 99999999999999999999", b"Content-Length: 1\r\nContent-Length: 2", b": x",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b" folded: x", b"X:\x00", b"A",
    b"Content-Type: application/json", b"Expect: 100-continue", b"Connection: Upgrade",
    b"Upgrade: h2c", b"\xff: \xff", b"5\r\nhello\r\n0\r\n", b"ffffffffffffffff", b"-1",
    b'{"texts": ["a"]}', b"Host: [", b"Host: a b",
])  # fmt: skip


@fuzz(
    st.lists(LINES | st.binary(max_size=20), max_size=8), st.sampled_from([b"\r\n", b"\n", b"\r"])
)
def test_any_lines_in_place_of_a_request(talk: Talk, lines: Sequence[bytes], end: bytes) -> None:
    send_raw(talk, end.join([*lines, b"", b""]))


@fuzz(st.sampled_from(list(GOOD)), st.lists(HEADERS, max_size=3), st.binary(max_size=40))
def test_the_next_request_of_a_connection_is_answered_too(
    talk: Talk, path: str, headers: Sequence[Header], body: bytes
) -> None:
    first = Request("POST", path.encode(), (OURS, *headers), body)
    second = Request("GET", b"/ready")
    with talk.connect() as connection:
        connection.sendall(first.to_bytes())
        reply = read_reply(connection, "POST")
        talk.check(first, reply)
        if not reply.closes:
            connection.sendall(second.to_bytes())
            assert read_reply(connection, "GET").status == 200
