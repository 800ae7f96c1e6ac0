"""/openapi.json keeps its promises, whatever is sent."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import yaml

from emberd.config.load import BUILT_IN
from tests.effort import examples
from tests.migrate.stores import make_cmem
from tests.serving import Server

TINY = Path(__file__).parent.parent / "reference" / "tiny" / "bert"
RERANKER = TINY.parents[1] / "rerankers" / "bert"
SPARSE = TINY.parents[1] / "sparse" / "bert"
AT_LEAST = 22  # routes
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
READY = """
[[operations]]
include-path = "/ready"
[operations.checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", 503]
"""  # "not ready" is what it is asked for


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with MiniLM, a store, and a re-ranker and a sparse model that are here already."""
    reranker = {"sources": [{"path": str(RERANKER)}], "max_tokens": 40}
    sparse = {"sources": [{"path": str(SPARSE)}], "max_tokens": 30, "dimensions": 149}
    models = {"ms-marco-minilm": reranker, "granite-sparse": {**sparse, "precision": "f32"}}
    home = tmp_path_factory.mktemp("described")
    vectors = np.random.default_rng(1).normal(size=(30, 384)).astype(np.float32)
    make_cmem(home / "notes", [f"text {row}" for row in range(30)], vectors)
    stores = {"notes": {"path": "notes", "kind": "cmem"}}
    config = yaml.safe_dump({"models": models, "stores": stores})
    with Server(home, config=config) as running:
        yield running


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models are all tiny and local, so that no name leads to a 503."""
    entry = {
        "sources": [{"path": str(TINY)}],
        "dimensions": 64,
        "pooling": "mean",
        "precision": "f32",
        "matryoshka": [32],
        "max_tokens": 30,
        "backend": "auto",
    }
    others = {
        "rerank": {"sources": [{"path": str(RERANKER)}], "max_tokens": 30},
        "sparse": {"sources": [{"path": str(SPARSE)}], "max_tokens": 30, "dimensions": 149},
    }
    models = {
        name: others.get(stated.get("kind"), entry)
        for name, stated in yaml.safe_load(BUILT_IN.read_text()).items()
    }
    config = yaml.safe_dump({"limits": {"max_loaded": 2}, "models": models})
    with Server(tmp_path_factory.mktemp("tiny"), config=config) as running:
        yield running


def operations(server: Server) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, method and description of all routes."""
    paths = server.http.get("/openapi.json").json()["paths"]
    return [
        (path, method, operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    ]


def test_every_route_is_described_with_its_statuses_and_error_shapes(server: Server) -> None:
    found = operations(server)

    assert len(found) >= AT_LEAST
    for path, method, operation in found:
        responses = operation["responses"]
        assert {"200", "403"} <= set(responses), path
        needs_no_token = method == "get" and path in ("/", "/health")
        assert ("401" in responses) != needs_no_token, path
        takes_a_body = method == "post" and path != "/reload"
        assert takes_a_body == ("requestBody" in operation), path
        for status, response in responses.items():
            for content in response["content"].values():
                assert content["schema"], (path, status)
            assert status == "200" or list(response["content"]) == ["application/json"]


def test_every_reference_leads_somewhere(server: Server) -> None:
    text = server.http.get("/openapi.json").text
    shapes = server.http.get("/openapi.json").json()["components"]["schemas"]

    referred = set(re.findall(r'"\$ref":\s*"#/components/schemas/([^"]+)"', text))
    assert {"NativeError", "OpenAIError", "OllamaError", "TEIError"} <= referred <= set(shapes)


def test_every_example_is_answered_in_the_shape_that_is_described(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    tried = 0
    for path, method, operation in operations(server):
        body = operation.get("requestBody", {})
        shown = body.get("content", {}).get("application/json", {}).get("examples", {})
        assert bool(shown) == (method == "post" and path != "/reload"), path
        for name, example in shown.items():
            response = server.http.post(path, json=example["value"])
            assert response.status_code == 200, (path, name, response.text)
            shape = operation["responses"]["200"]["content"]["application/json"]["schema"]
            whole = {**shape, "components": document["components"]}
            jsonschema_rs.Draft202012Validator(whole).validate(response.json())
            tried += 1

    assert tried >= 12


@pytest.mark.slow  # tests/fuzz/test_http.py sends much of the same
@pytest.mark.parametrize("phases", ["examples,fuzzing", "coverage"])
def test_whatever_is_sent_no_answer_is_a_5xx_or_undocumented(
    tiny: Server, tmp_path: Path, phases: str
) -> None:
    (tmp_path / "schemathesis.toml").write_text(READY)
    run = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{tiny.url}/openapi.json",
            "--phases", phases, "--max-examples", str(examples(40)), "--seed", "20",
            "--checks", ",".join(CHECKS), "--no-shrink", "--no-color",
            "--exclude-path", "/events",  # which never ends; tests/api/test_events.py reads it
            "--header", "X-Emberd-Mismatch-Status: 400",  # with 503, who asks for a 5xx gets one
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert f"Tested: {len(operations(tiny)) - 1}" in run.stdout
    assert "Traceback" not in tiny.log()


def test_the_server_starts_without_what_describes_it() -> None:
    code = "import sys, emberd.server.run; assert not {'fastapi', 'opentelemetry'} & {*sys.modules}"

    subprocess.run([sys.executable, "-c", code], check=True)
