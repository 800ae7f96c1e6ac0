"""A server that keeps vectors: the same answers, whoever computed them and whenever."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.cache import commands
from emberd.client.clients import Client
from emberd.migrate.embedding import ServerEmbedder
from tests.rerankers import CONFIG as RERANKER
from tests.rerankers import QUERY, TEXTS
from tests.serving import Server, wait_for

LONG = "word " * 1000


def config_of(home: Path, more: str = "") -> str:
    tiny_bert(home / "model")
    source = f"sources: [{{path: {home / 'model'}}}]"
    return f"""
default: tiny
cache: {{vectors: 32MiB}}
models:
  tiny:
    {source}
    dimensions: 64
    matryoshka: [32]
    pooling: mean
    compute: f32
    prompts: {{query: "find: "}}
  {more}
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("kept")
    with Server(home, config=config_of(home)) as running:
        yield running


def raw(server: Server, *texts: str, headers: dict[str, str] | None = None, **body: Any) -> Any:  # noqa: ANN401
    """Return the answer in bytes, and its headers."""
    accept = {"accept": "application/octet-stream", **(headers or {})}
    response = server.http.post("/embed", json={"texts": texts, **body}, headers=accept)
    assert response.status_code == 200, response.text
    return response


def metric(server: Server, name: str) -> float:
    lines = server.http.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"emberd_{name}{{"))


def written(server: Server, count: int) -> None:
    """Wait until so many vectors are in the file."""
    file = server.home / "cache" / "vectors.db"
    wait_for(lambda: file.exists() and commands.look(file).entries >= count)


def found_in_file(server: Server, *texts: str) -> dict[str, Any]:
    """Return the answer of a new worker that finds texts in the file, which it opens on the side.

    One that had not opened it has computed them, and finds them in its memory from then on. They
    are put into the file anew then; that it has no more entries says that they were there before.
    """
    file = server.home / "cache" / "vectors.db"
    before = commands.look(file).entries

    def ask() -> dict[str, Any] | None:
        answer = server.embed(*texts)
        if answer["cached"] == len(texts):
            return answer
        server.http.post("/unload", json={})
        return None

    answer = wait_for(ask)
    assert commands.look(file).entries == before
    return answer


def keep(server: Server, *texts: str, **body: Any) -> None:  # noqa: ANN401
    """Have texts embedded until they come from the cache: they are kept once they are answered."""
    wait_for(lambda: server.embed(*texts, **body)["cached"] == len(texts))


def test_the_second_answer_is_the_first_in_every_form(own: Server) -> None:
    texts = ["one", "two", LONG]
    forms: list[dict[str, Any]] = [
        {}, {"encoding": "base64"}, {"dimensions": 32}, {"truncate": True},
    ]  # fmt: skip
    fresh = [own.embed(*texts, cache=False, **form) for form in forms]
    keep(own, *texts)

    again = [own.embed(*texts, **form) for form in forms]

    assert [answer.pop("cached") for answer in fresh] == [0] * len(forms)
    assert [answer.pop("cached") for answer in again] == [3] * len(forms)
    for before, after in zip(fresh, again, strict=True):
        assert after["truncated"] == [2]
        assert before.keys() == after.keys()
        assert {**before, "embeddings": 0} == {**after, "embeddings": 0}
    for before, after in ((fresh[0], again[0]), (fresh[2], again[2])):
        rows = np.array(before["embeddings"]), np.array(after["embeddings"])
        assert (rows[0] * rows[1]).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert raw(own, *texts).headers["x-emberd-cached"] == "3"
    assert raw(own, *texts).content == raw(own, *texts).content


def test_some_texts_are_found_and_the_others_are_computed(own: Server) -> None:
    keep(own, "known 1", "known 2")
    batches = metric(own, "batch_texts_total")

    answer = own.embed("known 1", "unknown", "known 2", "unknown", "known 1")

    assert answer["cached"] == 3
    assert metric(own, "batch_texts_total") == batches + 1
    assert answer["embeddings"][0] == answer["embeddings"][4]
    assert answer["embeddings"][1] == answer["embeddings"][3]
    assert answer["usage"]["tokens"] == own.embed(
        "known 1", "unknown", "known 2", "unknown", "known 1", cache=False
    )["usage"]["tokens"]  # fmt: skip


def test_a_prompt_makes_another_text_of_it(own: Server) -> None:
    keep(own, "a question")

    assert own.embed("a question", input_type="query")["cached"] == 0
    keep(own, "a question", input_type="query")


def test_a_text_that_must_not_be_cut_is_refused_although_it_is_kept(own: Server) -> None:
    keep(own, "short", LONG)
    said = [
        own.http.post("/embed", json={"texts": ["short", LONG], "truncate": False, "cache": cache})
        for cache in (False, True)
    ]

    assert [response.status_code for response in said] == [422, 422]
    assert said[0].json() == said[1].json()


def test_a_request_can_ask_for_fresh_vectors_in_every_dialect(own: Server) -> None:
    keep(own, "well known")
    fresh = {"x-emberd-cache": "false"}
    computed = metric(own, "batch_texts_total")

    assert own.embed("well known", "well known", cache=False)["cached"] == 0
    assert raw(own, "well known", headers=fresh).headers["x-emberd-cached"] == "0"
    openai = {"input": "well known"}
    assert own.http.post("/v1/embeddings", json=openai, headers=fresh).status_code == 200
    assert metric(own, "batch_texts_total") == computed + 4  # each for itself
    assert own.http.post("/v1/embeddings", json=openai).status_code == 200
    assert metric(own, "batch_texts_total") == computed + 4

    refused = own.http.post("/v1/embeddings", json=openai, headers={"x-emberd-cache": "off"})
    assert refused.status_code == 400
    assert "X-Emberd-Cache" in refused.text


def test_texts_found_are_counted(own: Server) -> None:
    keep(own, "counted")
    before = metric(own, "cached_texts_total")

    own.embed("counted", "counted", "not yet counted")

    assert metric(own, "cached_texts_total") == before + 2


def test_clients_that_ask_for_the_same_at_once_get_the_same(own: Server) -> None:
    texts = [f"asked at once {number % 25}" for number in range(200)]
    expected = np.frombuffer(raw(own, *texts, cache=False).content, "<f4").reshape(200, -1)

    def ask(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(200)
        answer = raw(own, *(texts[place] for place in order))
        rows = np.frombuffer(answer.content, "<f4").reshape(200, -1)
        assert (rows * expected[order]).sum(axis=1) == pytest.approx(1, abs=1e-5)
        assert int(answer.headers["x-emberd-rows"]) == 200

    with ThreadPoolExecutor(8) as clients:
        list(clients.map(ask, range(24)))


def test_vectors_outlive_the_worker_and_the_server_but_not_a_change_of_space(home: Path) -> None:
    config = config_of(home)
    with Server(home, config=config) as first:
        before = first.embed("kept", "also kept")
        written(first, 2)
        first.http.post("/unload", json={})
        found_in_file(first, "kept")
        first.embed("another")
        written(first, 3)  # so what this worker computes has been checked
        first.embed("kept at the end")
        first.http.post("/unload", json={})
        written(first, 4)
        found_in_file(first, "kept")
        [worker] = first.workers()
        os.kill(worker.pid, signal.SIGKILL)
        found_in_file(first, "kept")

    with Server(home) as second:
        after = found_in_file(second, "kept", "also kept")
        assert after["embeddings"] == before["embeddings"]

    with Server(home, config=config.replace("max", "max").replace("find: ", "search: ")) as third:
        changed = third.embed("kept", "also kept")
        assert changed["fingerprint"] != before["fingerprint"]
        assert changed["cached"] == 0


@pytest.mark.parametrize("harm", ["garbage", "a folder", "lost secret"])
def test_whatever_happened_to_the_file_the_server_answers(home: Path, harm: str) -> None:
    config = config_of(home)
    with Server(home, config=config) as first:
        before = first.embed("kept")
        written(first, 1)
    file, secret = home / "cache" / "vectors.db", home / "state" / "vectors.key"
    if harm == "garbage":
        file.write_bytes(os.urandom(200_000))
    elif harm == "a folder":
        file.unlink()
        file.mkdir()
    else:
        secret.unlink()

    with Server(home) as second:
        after = second.embed("kept")
        assert (after["cached"], after["embeddings"]) == (0, before["embeddings"])
        assert second.embed("kept")["embeddings"] == before["embeddings"]
        assert "kept" not in second.log().replace("be kept", "").replace("kept)", "")


def test_without_the_setting_nothing_is_kept(small: Server) -> None:
    assert [small.embed("again")["cached"] for _ in range(2)] == [0, 0]
    assert not (small.home / "cache" / "vectors.db").exists()
    assert not (small.home / "state" / "vectors.key").exists()
    shown = small.run("cache")
    assert b"off" in shown.stdout
    assert b"cache.vectors" in shown.stdout


def test_scores_are_kept_for_a_query_and_a_text(home: Path) -> None:
    with Server(home, config=RERANKER + "\ncache: {vectors: 32MiB}\n") as own:
        body = {"query": QUERY, "documents": TEXTS}
        first = own.http.post("/v1/rerank", json=body).json()
        written(own, len(TEXTS))
        computed = metric(own, "batch_texts_total")
        second = own.http.post("/v1/rerank", json=body).json()
        assert metric(own, "batch_texts_total") == computed
        with Client(own.url) as client, ServerEmbedder(client) as measuring:
            measuring.rerank(QUERY, TEXTS, model="tiny").result()
        assert metric(own, "batch_texts_total") == computed + len(TEXTS)
        other = own.http.post("/v1/rerank", json={**body, "query": "something else"}).json()

    assert second["results"] == first["results"]
    assert other["results"] != first["results"]


def test_commands_tell_what_is_kept_and_delete_it(home: Path) -> None:
    other = f"other: {{sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: cls}}"
    with Server(home, config=config_of(home, other)) as own:
        own.embed("one", "two")
        own.embed("one", model="other")
        own.embed("one")
        written(own, 3)
        own.http.post("/unload", json={})
        wait_for(lambda: not own.workers())

        shown = own.run("cache").stdout.decode()
        assert "3 vectors" in shown
        assert "of 32 MiB" in shown
        doctor = own.run("doctor").stdout.decode()
        assert "3 vectors" in doctor.replace("\n", " ")

        removed = own.run("remove", "other")
        assert b"Vectors kept on disk: 1 removed." in removed.stdout
        assert commands.look(home / "cache" / "vectors.db").entries == 2

        assert own.run("cache", "clear").returncode == 0
        assert commands.look(home / "cache" / "vectors.db").entries == 0
        assert own.embed("one")["cached"] == 0
        keep(own, "one")
