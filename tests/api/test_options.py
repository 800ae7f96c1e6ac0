"""Options the way users of other servers send them: null, and other names for the same thing."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.dialects import ONE_OF_EACH, WAYS, Way
from tests.serving import Server

QUERY = ("query", "search_query", "retrieval.query")
DOCUMENT = ("document", "passage", "search_document", "retrieval.passage")
LONG = "b " * 600


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model has a prompt for each role, and a smaller size."""
    prompts = "prompts: {query: 'ask ', document: 'tell '}"
    config = f"models: {{minilm: {{matryoshka: [128], {prompts}}}}}"
    with Server(tmp_path_factory.mktemp("prompted"), config=config) as running:
        yield running


def options_of(server: Server) -> list[tuple[str, str, str]]:
    """Return path, shape and name of every option that /openapi.json has for a body."""
    described = server.http.get("/openapi.json").json()
    shapes = described["components"]["schemas"]
    found = []
    for path, methods in described["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        for reference in schema.get("anyOf", [schema]):
            shape = reference.get("$ref", "").rpartition("/")[2]
            needed = shapes.get(shape, {}).get("required", ())
            for name in shapes.get(shape, {}).get("properties", {}):
                if name not in needed:
                    found.append((path, shape, name))
    return found


TEXTS = {"EmbedBody": "texts", "OllamaEmbeddingsBody": "prompt", "OpenAIEmbeddingsBody": "input",
         "OllamaEmbedBody": "input", "OllamaShowBody": "model", "ModelBody": "model",
         "CohereEmbedBody": "texts", "ChunkBody": "texts"}  # fmt: skip


def test_null_is_as_good_as_leaving_an_option_out(server: Server) -> None:
    found = options_of(server)

    assert len(found) > 25
    for path, shape, name in found:
        if "Rerank" in shape or "Sparse" in shape:  # they need such a model: see their own tests
            continue
        if path.startswith(("/map", "/jobs", "/pin")):  # the page's: they embed no texts
            continue
        texts = TEXTS.get(shape, "inputs")
        value: Any = "minilm" if texts == "model" else ["a"] if texts != "prompt" else "a"
        answer = server.http.post(path, json={texts: value, name: None})
        assert answer.status_code == 200, (path, shape, name, answer.text)


@pytest.mark.parametrize("role", [*QUERY, *DOCUMENT])
@pytest.mark.parametrize("name", ["native", "OpenAI", "TEI", "TEI at the root"])
def test_roles_have_the_names_that_other_servers_give_them(
    prompted: Server, name: str, role: str
) -> None:
    way = WAYS[name]
    key = "prompt_name" if way.texts == "inputs" else "input_type"
    text = "ask cats" if role in QUERY else "tell cats"

    prompted_row = way.rows(way.ask(prompted.http, ["cats"], **{key: role}).json())

    assert prompted_row.tobytes() == way.rows(way.ask(prompted.http, [text]).json()).tobytes()


@pytest.mark.parametrize("task", ["classification", "clustering", "separation", "text-matching"])
def test_tasks_that_are_no_search_have_no_prompt(prompted: Server, task: str) -> None:
    way = WAYS["OpenAI"]

    rows = way.rows(way.ask(prompted.http, ["cats"], task=task).json())

    assert rows.tobytes() == way.rows(way.ask(prompted.http, ["cats"]).json()).tobytes()


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"task": "retrieval.query"}, {"input_type": "query"}),
        ({"output_dimension": 128}, {"dimensions": 128}),
        ({"embedding_type": "base64"}, {"encoding_format": "base64"}),
        ({"output_dtype": "float"}, {}),
    ],
)
def test_voyages_and_jinas_words_reach_openais_route(
    prompted: Server, options: dict[str, Any], same: dict[str, Any]
) -> None:
    way = WAYS["OpenAI"]

    assert way.ask(prompted.http, ["a"], **options).json() == (
        way.ask(prompted.http, ["a"], **same).json()
    )


@pytest.mark.parametrize("way", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
def test_cutting_has_the_names_that_nim_and_cohere_give_it(server: Server, way: Way) -> None:
    cut, plain = (way.ask(server.http, [LONG], truncate=value) for value in ("END", True))
    refused, plainly = (way.ask(server.http, [LONG], truncate=value) for value in ("NONE", False))

    assert way.rows(cut.json()).tobytes() == way.rows(plain.json()).tobytes()
    assert refused.status_code == plainly.status_code in (400, 422)
    assert refused.json() == plainly.json()
    assert way.ask(server.http, ["short"], truncate="none").status_code == 200


@pytest.mark.parametrize("way", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
def test_a_text_is_not_cut_at_its_start_and_why(server: Server, way: Way) -> None:
    answer = way.ask(server.http, ["a"], truncate="START")

    assert answer.status_code == 400
    assert "truncate: texts are only cut at the end" in way.message(answer.json())
    assert "'NONE'" in way.message(answer.json())


@pytest.mark.parametrize("way", ONE_OF_EACH.values(), ids=list(ONE_OF_EACH))
def test_another_word_for_cutting_is_the_wrong_shape(server: Server, way: Way) -> None:
    answer = way.ask(server.http, ["a"], truncate="MIDDLE")

    assert answer.status_code == 422
    assert "truncate: should be" in way.message(answer.json())


@pytest.mark.parametrize("direction", ["left", "Left"])
def test_teis_direction_is_the_same_thing(server: Server, direction: str) -> None:
    way = WAYS["TEI"]

    answer = way.ask(server.http, ["a"], truncation_direction=direction)

    assert answer.status_code == 400
    assert "truncation_direction: texts are only cut at the end" in way.message(answer.json())


def test_voyages_truncation_is_truncate(server: Server) -> None:
    way = WAYS["OpenAI"]

    assert way.ask(server.http, [LONG], truncation=None).status_code == 200
    assert way.ask(server.http, [LONG], truncation=False).status_code == 422
