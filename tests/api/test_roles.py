"""Names with a role, for clients that can send only a model's name: `asks:query`."""

from collections.abc import Iterator
from typing import Any

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.api.dialects import ONE_OF_EACH, WAYS, Way
from tests.serving import Server

OLDER = Way("/api/embeddings", "prompt", {}, "embedding", frozenset({"error"}))
HAVE_A_WORD = {name: way for name, way in ONE_OF_EACH.items() if name != "Ollama"}
TEXTS = ["the cat", "", "word " * 60]
ENTRY = "sources: [{{path: {}}}], dimensions: 64, pooling: mean, matryoshka: [32]"
CONFIG = """
default: plain
aliases: {{text-embedding-3-small: "asks:document", nomic: plain, taken: asks:query}}
models:
  plain: {{{entry}}}
  asks: {{{entry}, prompts: {prompts}, aliases: [asks-v1, "tagged:v1.5", taken]}}
  alike: {{{entry}, prompts: {{query: "a: ", document: "a: "}}}}
"""
PROMPTS = "{query: 'ask ', document: 'and then tell '}"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model that has a prompt for each role, one with none, and one with equals."""
    home = tmp_path_factory.mktemp("named")
    tiny_bert(home / "model")
    config = CONFIG.format(entry=ENTRY.format(home / "model"), prompts=PROMPTS)
    with Server(home, config=config) as running:
        yield running


def bits(server: Server, *texts: str, **options: object) -> bytes:
    """Return the vectors of the native route."""
    return WAYS["native"].rows(server.embed(*texts, **options)).tobytes()


@pytest.mark.parametrize("role", ["query", "document"])
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_the_name_does_what_input_type_does(named: Server, way: Way, role: str) -> None:
    answer = way.ask(named.http, TEXTS, model=f"asks:{role}")

    assert answer.status_code == 200, answer.text
    assert way.rows(answer.json()).tobytes() == bits(named, *TEXTS, model="asks", input_type=role)
    for other in {"query", "document", None} - {role}:
        assert way.rows(answer.json()).tobytes() != bits(
            named, *TEXTS, model="asks", **({"input_type": other} if other else {})
        )
    assert answer.headers["x-emberd-model"] == "asks"
    assert answer.headers["x-emberd-prompt"] == role


def test_ollamas_older_route_takes_it(named: Server) -> None:
    answer = OLDER.ask(named.http, "the cat", model="asks:query").json()

    assert OLDER.rows(answer).tobytes() == bits(named, "the cat", model="asks", input_type="query")


def test_the_tokens_are_those_of_the_prompt(named: Server) -> None:
    by_name, stated = (
        named.http.post("/tokenize", json={"inputs": ["the cat"], **asked}).json()
        for asked in (
            {"model": "asks:query"},
            {"model": "asks", "prompt_name": "query"},
        )
    )

    assert by_name == stated
    assert "".join(token["text"] for token in by_name[0][1:3]).startswith("ask")


def test_other_options_go_with_it(named: Server) -> None:
    small = named.embed("the cat", model="asks:query", dimensions=32)

    same = named.embed("the cat", model="asks", input_type="query", dimensions=32)
    assert small == same
    assert small["dimensions"] == 32


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("ASKS:Query", "query"),
        ("asks:query:latest", "query"),  # as some of Ollama's clients write every name
        ("asks:latest:document", "document"),
        ("asks-v1:query", "query"),
        ("tagged:v1.5:query", "query"),
        ("text-embedding-3-small", "document"),
        ("text-embedding-3-small:latest", "document"),
        ("text-embedding-3-small:document", "document"),
        ("Text-Embedding-3-Small", "document"),
        ("taken", "query"),  # the alias of the file, not the entry's
        ("tagged:v1.5", None),
        ("asks:latest", None),
        ("asks", None),
    ],
)
def test_names_aliases_and_tags_go_on_as_they_are(
    named: Server, name: str, role: str | None
) -> None:
    wanted = bits(named, "the cat", model="asks", **({"input_type": role} if role else {}))

    answer = WAYS["Ollama"].ask(named.http, ["the cat"], model=name)

    assert WAYS["Ollama"].rows(answer.json()).tobytes() == wanted
    assert answer.headers.get("x-emberd-prompt") == role


def test_it_is_the_same_model_with_one_worker_and_one_fingerprint(named: Server) -> None:
    answers = [
        named.embed("a", model=name)
        for name in ("asks", "asks:query", "asks:document", "text-embedding-3-small")
    ]

    assert {answer["model"] for answer in answers} == {"asks"}
    assert len({answer["fingerprint"] for answer in answers}) == 1
    assert (named.row("asks")["loads"], len(named.row("asks")["pids"])) == (1, 1)


@pytest.mark.parametrize("name", ["plain:query", "plain:document", "nomic:query", "nomic"])
def test_a_model_without_prompts_treats_both_alike(named: Server, name: str) -> None:
    assert bits(named, *TEXTS, model=name) == bits(named, *TEXTS)


@pytest.mark.parametrize("way", HAVE_A_WORD.values(), ids=list(HAVE_A_WORD))
def test_a_request_that_says_something_else_is_a_400(named: Server, way: Way) -> None:
    key = "prompt_name" if way.texts == "inputs" else "input_type"

    for name in ("asks:query", "plain:query", "taken"):
        for other, said in (("document", "document"), ("clustering", "a task without a prompt")):
            answer = way.ask(named.http, ["a"], model=name, **{key: other})

            message = way.message(answer.json())
            assert answer.status_code == 400
            assert f"The name '{name}' says that the texts are of the role query" in message
            assert f"but {said} is asked for" in message
            assert "Leave the input type out" in message


@pytest.mark.parametrize("way", HAVE_A_WORD.values(), ids=list(HAVE_A_WORD))
def test_a_request_that_says_the_same_is_answered(named: Server, way: Way) -> None:
    key = "prompt_name" if way.texts == "inputs" else "input_type"

    for said in ("query", "search_query", None):
        answer = way.ask(named.http, ["a"], model="asks:query", **{key: said})

        assert way.rows(answer.json()).tobytes() == bits(
            named, "a", model="asks", input_type="query"
        )


@pytest.mark.parametrize("way", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("asks:image", "asks:query or asks:document"),
        ("asks:v1.5", "asks:query or asks:document"),
        ("asks:query:document", "asks:query already states the role query"),
        ("aks:query", "Did you mean asks:query"),
        (
            "text-embedding-3-small:query",
            "text-embedding-3-small already states the role document",
        ),
        ("tagged:v1", "Did you mean tagged:v1.5"),
    ],
)
def test_another_role_is_an_unknown_model_and_which_there_are(
    named: Server, way: Way, name: str, hint: str
) -> None:
    answer = way.ask(named.http, ["a"], model=name)

    message = way.message(answer.json())
    assert answer.status_code == 404
    assert f"No model is called '{name}'." in message
    assert hint in message


def test_they_are_listed_where_models_are(named: Server) -> None:
    roles = {"asks:query", "asks:document", "text-embedding-3-small", "taken"}
    rows = {row["name"]: row for row in named.http.get("/models").json()["models"]}
    ids = [model["id"] for model in named.http.get("/v1/models").json()["data"]]
    tags = [tag["name"] for tag in named.http.get("/api/tags").json()["models"]]

    assert rows["asks"]["roles"] == {
        "asks:query": "query",
        "asks:document": "document",
        "text-embedding-3-small": "document",
        "taken": "query",
    }
    assert rows["asks"]["prompts"] == {"query": "ask ", "document": "and then tell "}
    assert rows["plain"]["prompts"] == {}
    assert rows["asks"]["aliases"] == ["asks-v1", "tagged:v1.5"]
    assert rows["plain"]["roles"] == rows["alike"]["roles"] == {}
    assert rows["plain"]["aliases"] == ["nomic"]
    assert roles | {"asks", "asks-v1", "tagged:v1.5", "nomic"} <= set(ids)
    assert {"asks:query", "asks:document", "text-embedding-3-small:latest"} <= set(tags)
    assert not [name for name in (*ids, *tags) if name.startswith(("plain:q", "alike:q"))]
    assert len(ids) == len(set(ids)) == len(tags) == len(set(tags))


def test_what_is_listed_embeds_and_is_shown(named: Server) -> None:
    tags = [tag["name"] for tag in named.http.get("/api/tags").json()["models"]]
    ours = [tag for tag in tags if tag.startswith(("asks", "text-emb", "taken", "nomic:"))]

    assert len(ours) > 6
    for tag in ours:
        assert WAYS["Ollama"].ask(named.http, ["a"], model=tag).status_code == 200
        assert named.http.post("/api/show", json={"model": tag}).status_code == 200
    for name, model in (("asks:query", "asks"), ("nomic", "plain")):
        assert named.http.get(f"/v1/models/{name}").json()["id"] == model


@pytest.mark.parametrize("route", ["/load", "/unload"])
def test_loading_and_unloading_take_it(named: Server, route: str) -> None:
    answer: dict[str, Any] = named.http.post(route, json={"model": "alike:query"}).json()

    assert answer.get("name", "alike") == "alike"
    assert named.http.post("/api/embed", json={"model": "alike:query"}).json()["model"] == "alike"
    assert named.row("alike")["state"] == "ready"


def test_aliases_move_without_a_restart(named: Server) -> None:
    file = named.home / "config.yaml"
    before = file.read_text()
    named.embed("a", model="asks")
    pid = named.row("asks")["pid"]
    try:
        old = 'text-embedding-3-small: "asks:document"'
        file.write_text(before.replace(old, "ada: asks:query"))

        changes = {
            change["key"]: (change["after"], change["effect"])
            for change in named.http.get("/reload").json()["changes"]
        }
        named.http.post("/reload").raise_for_status()

        assert changes == {
            "aliases.ada": ("asks:query", "at_once"),
            "aliases.text-embedding-3-small": (None, "at_once"),
        }
        assert bits(named, "a", model="ada") == bits(named, "a", model="asks:query")
        gone = named.http.post("/embed", json={"texts": ["a"], "model": "text-embedding-3-small"})
        assert gone.status_code == 404
        assert named.row("asks")["pid"] == pid
    finally:
        file.write_text(before)
        named.http.post("/reload").raise_for_status()
