"""The native routes: what an answer contains, in each of its formats."""

import base64
import io
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest

from tests.load import numbered
from tests.serving import Server, wait_for


def test_an_answer_says_model_fingerprint_and_tokens_in_body_and_headers(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": ["hello world"]})

    answer = response.json()
    assert answer["model"] == response.headers["x-emberd-model"] == "minilm"
    assert answer["fingerprint"] == response.headers["x-emberd-fingerprint"]
    assert answer["usage"] == {"tokens": 4}  # [CLS] hello world [SEP]
    assert answer["truncated"] == []


@pytest.mark.parametrize("name", ["minilm", "all-minilm", "mlx-community/all-MiniLM-L6-v2-4bit"])
def test_a_model_answers_to_name_alias_and_hub_id(server: Server, name: str) -> None:
    assert server.embed("text", model=name)["model"] == "minilm"


def test_every_form_of_an_answer_holds_the_same_bits(server: Server) -> None:
    texts = ["first text", "", "third"]
    body = {"texts": texts}

    as_json = np.array(server.embed(*texts)["embeddings"], "<f4")
    encoded = server.embed(*texts, encoding="base64")["embeddings"]
    as_base64 = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in encoded])
    raw = server.http.post("/embed", json=body, headers={"accept": "application/octet-stream"})
    npy = server.http.post("/embed", json=body, headers={"accept": "application/x-npy"})

    assert (raw.headers["x-emberd-rows"], raw.headers["x-emberd-dimensions"]) == ("3", "384")
    assert as_json.tobytes() == as_base64.tobytes() == raw.content
    assert np.load(io.BytesIO(npy.content)).tobytes() == raw.content


@pytest.mark.slow
def test_a_prompt_is_put_before_queries_and_counted(home: Path) -> None:
    config = "models: {minilm: {prompts: {query: 'search: '}}}"
    with Server(home, config=config) as own:
        plain = own.embed("search: cats")
        prompted = own.embed("cats", input_type="query")
        document = own.embed("cats", input_type="document")

    assert prompted["embeddings"] == plain["embeddings"]
    assert prompted["usage"] == plain["usage"]
    assert document["embeddings"] != plain["embeddings"]


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True])
def test_smaller_dimensions_are_cut_and_normalized_where_the_entry_lists_them(
    home: Path, *, norm: bool
) -> None:
    config = f"models: {{minilm: {{matryoshka: [128], matryoshka_norm: {norm}}}}}"
    with Server(home, config=config) as own:
        whole = own.embed("text")
        small = own.embed("text", dimensions=128)

    expected = np.array(whole["embeddings"][0])
    if norm:
        expected -= expected.mean()
    expected = expected[:128] / np.linalg.norm(expected[:128])
    assert small["dimensions"] == 128
    assert np.allclose(small["embeddings"][0], expected, atol=1e-6)
    assert small["fingerprint"] != whole["fingerprint"]


def test_health_of_a_cold_server_loads_nothing(home: Path) -> None:
    with Server(home) as own:
        health = own.http.get("/health").json()

        assert (health["loaded"], health["name"], health["fingerprint"]) == (False, "minilm", None)
        assert {model["state"] for model in health["models"]} == {"cold"}
        assert health["warnings"] == []
        assert own.workers() == []


@pytest.mark.slow
def test_health_knows_the_fingerprint_of_a_model_that_ran_before(home: Path) -> None:
    with Server(home) as own:
        fingerprint = own.embed("text")["fingerprint"]
    with Server(home) as own:
        assert own.http.get("/health").json()["fingerprint"] == fingerprint


def test_an_unknown_variable_is_a_warning_in_health(home: Path) -> None:
    with Server(home, environ={"EMBERD_LIMITS_MAX_LODED": "2"}) as own:
        (warning,) = own.http.get("/health").json()["warnings"]

    assert "EMBERD_LIMITS_MAX_LOADED" in warning["message"]


@pytest.mark.slow
def test_load_answers_with_the_row_of_a_ready_model(home: Path) -> None:
    with Server(home) as own:
        row = own.http.post("/load", json={"model": "minilm-f32"}).json()

        assert (row["name"], row["state"], row["loads"]) == ("minilm-f32", "ready", 1)
        assert row["memory_bytes"] > 50 * 2**20
        assert row["last_load_s"] > 0
        assert own.http.post("/load").json()["name"] == "minilm"


@pytest.mark.slow
def test_the_parts_of_a_cold_start_add_up_to_about_its_time(home: Path) -> None:
    with Server(home) as own:

        def started() -> dict[str, Any] | None:
            """Return the row after a start in which nothing stood still between two parts."""
            own.http.post("/unload")
            own.embed("text")
            row = own.row()
            return row if sum(row["phases_s"].values()) >= row["last_load_s"] * 0.8 else None

        row = wait_for(started)
        table = own.run("ps", "--verbose").stdout.decode()

    phases = row["phases_s"]
    assert list(phases) == ["spawn", "import", "files", "load", "identity", "first vector"]
    assert all(0 <= seconds < 60 for seconds in phases.values())
    assert sum(phases.values()) <= row["last_load_s"] + phases["first vector"] + 0.1
    assert f"{phases['load'] * 1e3:.0f}" in table


@pytest.mark.slow
def test_a_load_that_nobody_waited_for_has_no_first_vector(home: Path) -> None:
    with Server(home) as own:
        own.http.post("/load")
        own.embed("text")

        assert "first vector" not in own.row()["phases_s"]


def test_models_has_a_row_for_every_entry_with_every_field(server: Server) -> None:
    server.embed("text")
    wait_for(lambda: server.row()["pulled"])  # noted after the first answer, not before

    rows = {row["name"]: row for row in server.http.get("/models").json()["models"]}

    assert {"minilm", "minilm-f32", "bge-small", "bge-small-f32", "mpnet", "mpnet-f32"} <= set(rows)
    assert set(rows["minilm"]) >= {
        "name", "kind", "aliases", "dimensions", "pooling", "precision", "max_tokens",
        "fingerprint", "state", "backend", "memory_bytes", "in_flight", "queued", "idle_s",
        "unloads_in_s", "loads", "last_load_s", "last_error", "pulled", "tested",
    }  # fmt: skip
    assert rows["minilm"]["pulled"] is True
    assert rows["minilm"]["tested"] == "reference"
    assert (rows["mpnet"]["state"], rows["mpnet"]["pulled"]) == ("cold", False)


def test_ready_is_200_and_needs_nothing(server: Server) -> None:
    assert server.http.get("/ready").status_code == 200


def test_a_model_without_files_is_a_503_that_lists_what_was_tried(server: Server) -> None:
    response = server.http.post("/embed", json={"texts": ["a"], "model": "mpnet"})

    error = response.json()
    assert (response.status_code, error["code"]) == (503, "model_unavailable")
    assert "hf:sentence-transformers/all-mpnet-base-v2" in error["detail"]
    assert "emberd pull mpnet" in error["hint"]
    assert response.headers["retry-after"]
    assert server.embed("others go on")["model"] == "minilm"


@pytest.mark.parametrize(
    "texts",
    [["a text"], pytest.param(numbered("word " * 400, 500), marks=pytest.mark.slow)],
    ids=["one text", "many"],
)
def test_a_client_that_hangs_up_leaves_the_queue(server: Server, texts: list[str]) -> None:
    server.embed("load first")
    worker = psutil.Process(server.row()["pid"])
    worker.suspend()
    try:
        with pytest.raises(httpx2.TimeoutException):
            server.http.post("/embed", json={"texts": texts}, timeout=0.3)
        wait_for(lambda: server.row()["in_flight"] == 0)
    finally:
        worker.resume()

    assert server.embed("short")["model"] == "minilm"


@pytest.mark.slow
def test_the_deadline_is_a_504_and_the_next_request_is_served(home: Path) -> None:
    with Server(home, config="limits: {request_timeout: 3s}") as own:
        own.http.post("/load")
        wait_for(lambda: own.row()["state"] == "ready")

        worker = psutil.Process(own.row()["pid"])
        worker.suspend()
        try:
            late = own.http.post("/embed", json={"texts": ["too late"]})
        finally:
            worker.resume()

        assert (late.status_code, late.json()["code"]) == (504, "deadline")

        def is_served() -> bool:
            answer = own.http.post("/embed", json={"texts": ["short"]})
            assert answer.status_code in (200, 504), answer.text
            return answer.status_code == 200

        wait_for(is_served)  # 504 only while the worker stands still


@pytest.mark.slow
def test_a_full_queue_is_a_429_but_never_on_an_idle_server(home: Path) -> None:
    with Server(home, config="limits: {max_queued_texts: 10}") as own:
        assert len(own.embed(*["text"] * 50)["embeddings"]) == 50

        with own.http.stream("POST", "/unload"):
            pass
        from concurrent.futures import ThreadPoolExecutor

        def ask(number: int) -> httpx2.Response:
            texts = numbered(f"{number} " + "word " * 200, 8)
            return own.http.post("/embed", json={"texts": texts})

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, range(8)))

    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("queue_full", "1")


def test_the_openapi_document_names_the_routes_and_the_body(server: Server) -> None:
    document = server.http.get("/openapi.json").json()

    assert {"/embed", "/health", "/ready", "/load", "/unload", "/models"} <= set(document["paths"])
    body = document["paths"]["/embed"]["post"]["requestBody"]["content"]["application/json"]
    shapes = [shape["$ref"].rpartition("/")[2] for shape in body["schema"]["anyOf"]]
    native, tei = (document["components"]["schemas"][shape]["properties"] for shape in shapes)
    assert ("texts" in native, "inputs" in tei) == (True, True)


@pytest.mark.parametrize("path", ["/load", "/unload"])
def test_a_mistyped_key_unloads_nothing(server: Server, path: str) -> None:
    server.embed("load")

    response = server.http.post(path, json={"modle": "mpnet"})

    assert (response.status_code, response.json()["code"]) == (422, "wrong_shape")
    assert "modle" in response.json()["detail"]
    assert server.row()["state"] == "ready"
