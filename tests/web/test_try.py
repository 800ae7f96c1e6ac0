"""Try: cosines, tokens and orders on the page are those of the server's own answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.faults.troubled import loading_held, serve_troubled
from tests.rerankers import FOLDER, ORDER, QUERY, TEXTS
from tests.serving import Server
from tests.web.browsing import (
    LOOKS,
    SLOW_MS,
    WIDTHS,
    Scheme,
    assert_accessible,
    assert_nothing_is_cut,
    opened,
)

TINY = Path(__file__).parents[1] / "reference" / "tiny"
CONFIG = f"""
models:
  asks:
    sources: [{{path: {TINY / "bert"}}}]
    dimensions: 64
    pooling: mean
    max_tokens: 12
    backend: troubled
    prompts: {{query: "the: ", document: "tell: "}}
  bytes: {{sources: [{{path: {TINY / "qwen3"}}}], dimensions: 64, pooling: last}}
  gone: {{sources: [{{path: /nowhere}}], dimensions: 64, pooling: mean}}
  sorts: {{kind: rerank, pooling: cls, compute: f32, sources: [{{path: {FOLDER}}}]}}
"""
SENTENCES = ["the second vector", "a vector and another", "the hat", "0 1 2 3 4", "and then"]
HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "<img src=x onerror=\"document.title = 'taken'\">",
    "שלום עולם, the vector",
    "👩\u200d👩\u200d👧 the 🦊 vector 🎉",
    "&lt;b&gt; & 'quoted' \"twice\"",
    "e\u0301\u202e reversed",
]


@pytest.fixture(scope="module")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with models that have prompts and a low limit, tokens of bytes, and a re-ranker."""
    with serve_troubled(tmp_path_factory.mktemp("trying"), config=CONFIG) as running:
        yield running


def compare(page: Page, texts: list[str], *, model: str, other: str = "", role: str = "") -> None:
    """Fill in the form and wait for the heat map of each model."""
    page.get_by_label("Texts", exact=True).fill("\n".join(texts))
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Beside it").select_option(other)
    page.get_by_label("Role of the texts").select_option(role)
    page.get_by_role("button", name="Compare").click()
    for each in filter(None, (model, other)):
        heat_map(page, each).wait_for()


def heat_map(page: Page, model: str) -> Locator:
    """Return the table of a model's cosines."""
    return page.get_by_role("table", name=f"Cosines of all pairs by {model}")


def numbers(table: Locator) -> list[list[float]]:
    """Return the numbers of a table's body; where they have no room, cells have them as titles."""
    found = table.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell =>"
        " cell.textContent || cell.title))"
    )
    return [[float(cell) for cell in row] for row in found]


def cosines(server: Server, texts: list[str], **options: object) -> Any:  # noqa: ANN401
    """Return the cosines of the server's vectors, `(N, N)`."""
    vectors = np.array(server.embed(*texts, **options)["embeddings"])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T


@pytest.mark.parametrize("role", ["", "query"])
def test_the_heat_map_has_the_cosines_of_the_vectors(
    browser: Browser, trying: Server, role: str
) -> None:
    asked = {"input_type": role} if role else {}
    expected = cosines(trying, SENTENCES, model="asks", **asked)

    with opened(browser, trying, "try") as page:
        compare(page, SENTENCES, model="asks", role=role)
        shown = numbers(heat_map(page, "asks"))
        prompt = page.locator("code.prompt").all_inner_texts()

    assert np.abs(np.array(shown) - expected).max() <= 0.005 + 1e-6
    assert prompt == (["the: "] if role else [])


def test_the_keyboard_chooses_a_pair(browser: Browser, trying: Server) -> None:
    expected = cosines(trying, SENTENCES, model="asks")

    with opened(browser, trying, "try") as page:
        compare(page, SENTENCES, model="asks")
        page.get_by_label("Cosines by asks").focus()
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
            page.keyboard.press(key)
        pair = page.get_by_label("The pair that is looked at")

        expect(pair.locator("strong")).to_have_text(f"{expected[1][3]:.4f}")
        assert pair.locator("li").all_inner_texts() == [SENTENCES[1], SENTENCES[3]]


def test_a_start_is_told_while_the_first_answer_waits(browser: Browser, trying: Server) -> None:
    trying.http.post("/unload", json={})
    with opened(browser, trying, "try") as page:
        page.get_by_label("Texts", exact=True).fill("the hat\nthe vector")
        page.get_by_label("Model", exact=True).select_option("asks")
        with loading_held(trying):
            page.get_by_role("button", name="Compare").click()
            under_way = page.get_by_label("Under way")
            expect(under_way.get_by_text("asks starts")).to_be_visible(timeout=SLOW_MS)
            expect(under_way.get_by_text("so far")).to_be_visible()
        heat_map(page, "asks").wait_for(timeout=SLOW_MS)
        expect(under_way).to_have_count(0)


def test_an_answer_that_is_no_longer_wanted_is_not_waited_for(
    browser: Browser, trying: Server
) -> None:
    trying.http.post("/unload", json={})
    with opened(browser, trying, "try") as page:
        page.get_by_label("Model", exact=True).select_option("asks")
        with loading_held(trying):
            page.get_by_role("button", name="Compare").click()
            page.get_by_role("button", name="Stop").click()
            expect(page.get_by_label("Under way")).to_have_count(0)
        expect(page.get_by_role("alert")).to_have_count(0)
        expect(heat_map(page, "asks")).to_have_count(0)


def test_what_the_model_does_not_see_is_marked(browser: Browser, trying: Server) -> None:
    long = " ".join(["the second vector and the hat"] * 4)
    tokens = trying.http.post(
        "/tokenize", json={"inputs": [long], "model": "asks", "prompt_name": "query"}
    ).json()[0]
    words = [token for token in tokens if not token["special"]]
    kept = words[: 12 - (len(tokens) - len(words))]
    assert trying.embed("short", long, model="asks", input_type="query")["truncated"] == [1]

    with opened(browser, trying, "try") as page:
        compare(page, ["short", long], model="asks", role="query")
        drawn = page.locator(".tokens").nth(1)
        told = page.locator(".texts summary").nth(1).inner_text()
        seen = drawn.locator(".token:not(.lost)").all_inner_texts()
        of_prompt = drawn.locator(".of-prompt").all_inner_texts()

        expect(drawn.locator(".cut")).to_have_count(1)
        expect(page.locator(".tokens").first.locator(".cut")).to_have_count(0)

    assert seen == [token["text"] for token in kept]
    assert "".join(of_prompt) == "the:"
    assert told == (
        f"Text 2: {len(tokens)} tokens, {len(words) - len(kept)} lost: the model takes 12"
    )


@pytest.mark.parametrize("model", ["asks", "bytes", "minilm"])
def test_texts_are_shown_as_they_are_whatever_they_contain(
    browser: Browser, trying: Server, model: str
) -> None:
    with opened(browser, trying, "try") as page:
        compare(page, HOSTILE, model=model)
        page.locator(".texts details[open]").nth(len(HOSTILE) - 1).wait_for()
        # Without the mark of a cut, and without the counts of tokens in one character.
        shown = page.locator(".tokens").evaluate_all(
            "texts => texts.map(text => { const copy = text.cloneNode(true);"
            " copy.querySelectorAll('.cut, sub').forEach(each => each.remove());"
            " return copy.textContent; })"
        )
        page.get_by_label(f"Cosines by {model}").focus()
        page.keyboard.press("ArrowRight")
        pair = page.get_by_label("The pair that is looked at")
        expect(pair.locator("li").last).to_have_text(HOSTILE[1])
        title = page.title()
        assert_accessible(page)
        assert_nothing_is_cut(page)

    assert shown == HOSTILE
    assert title == "Try · emberd"
    assert "taken" not in trying.log()
    assert "שלום" not in trying.log()


def test_tokens_within_one_character_are_one_piece(browser: Browser, trying: Server) -> None:
    fox = "the 🦊 vector"
    tokens = trying.http.post("/tokenize", json={"inputs": [fox], "model": "bytes"}).json()[0]
    places = [(token["start"], token["stop"]) for token in tokens if not token["special"]]
    within = [place for place in places if place[0] <= 4 < place[1]]

    with opened(browser, trying, "try") as page:
        compare(page, [fox, "the"], model="bytes")
        drawn = page.locator(".tokens").first
        expect(drawn.locator(".token", has_text="🦊")).to_have_count(1)
        counted = drawn.locator(".token", has_text="🦊").locator("sub").all_inner_texts()

    assert len(within) > 1
    assert counted == [str(len(within))]


def test_two_models_are_compared_by_the_order_of_the_pairs(
    browser: Browser, trying: Server
) -> None:
    pairs = [(a, b) for a in range(5) for b in range(a + 1, 5)]
    seen = [cosines(trying, SENTENCES, model=name) for name in ("asks", "bytes")]
    values = [[found[pair] for pair in pairs] for found in seen]
    places = [np.argsort(np.argsort([-value for value in each])) + 1 for each in values]
    apart = np.abs(places[0] - places[1])

    with opened(browser, trying, "try") as page:
        compare(page, SENTENCES, model="asks", other="bytes")
        section = page.locator("section", has=page.get_by_text("Where they differ most"))
        first = section.locator("tbody tr").first.locator("td.num").all_inner_texts()
        said = section.locator("p").first.inner_text()
        section.locator("tbody button").first.click()
        looked = page.get_by_label("The pair that is looked at").locator("strong")
        both = looked.all_inner_texts()

    worst = [index for index in range(len(pairs)) if apart[index] == apart.max()]
    expected = [
        [str(places[0][index]), f"{values[0][index]:.3f}", str(places[1][index]),
         f"{values[1][index]:.3f}"]
        for index in worst
    ]  # fmt: skip
    assert first in expected
    assert both in [[f"{value[index]:.4f}" for value in values] for index in worst]
    assert f"correlate by {np.corrcoef(places[0], places[1])[0, 1]:.2f}" in said


def test_fifty_texts_have_room_and_a_fifty_first_is_told(browser: Browser, trying: Server) -> None:
    texts = [f"the vector {index}" for index in range(51)]
    expected = cosines(trying, texts[:50], model="asks")

    for width in WIDTHS.values():
        with opened(browser, trying, "try", width=width) as page:
            compare(page, texts, model="asks")
            expect(page.get_by_text("51 texts; the first 50 are compared.")).to_be_visible()
            shown = numbers(heat_map(page, "asks"))
            assert_nothing_is_cut(page)
            assert_accessible(page)

        assert np.abs(np.array(shown) - expected).max() <= 0.005 + 1e-6


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_what_is_found_is_readable(
    browser: Browser, trying: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, trying, "try", width=width, scheme=scheme) as page:
        compare(page, [*SENTENCES, "the " * 20], model="asks", other="bytes")
        assert_accessible(page)
        assert_nothing_is_cut(page)
    with opened(browser, trying, "try/nearest", width=width, scheme=scheme) as page:
        page.get_by_role("button", name="Sort").click()
        page.get_by_label("By the re-ranker").wait_for()
        assert_accessible(page)
        assert_nothing_is_cut(page)


def test_passages_are_sorted_by_cosine_and_by_the_reranker(
    browser: Browser, trying: Server
) -> None:
    kept = [index for index, text in enumerate(TEXTS) if text]  # the page leaves out empty lines
    passages = [" ".join(TEXTS[index].split()) for index in kept]
    best_first = [kept.index(index) for index in ORDER if index in kept]
    question = np.array(trying.embed(QUERY, model="asks", input_type="query")["embeddings"][0])
    found = np.array(trying.embed(*passages, model="asks", input_type="document")["embeddings"])
    near = found @ question / np.linalg.norm(found, axis=1) / np.linalg.norm(question)

    with opened(browser, trying, "try/nearest") as page:
        page.get_by_label("Question").fill(QUERY)
        page.get_by_label("Passages").fill("\n".join(passages))
        page.get_by_label("Model", exact=True).select_option("asks")
        assert page.get_by_label("Re-ranker").input_value() == "sorts"
        page.get_by_role("button", name="Sort").click()
        ranked = page.get_by_label("By the re-ranker")
        ranked.wait_for()
        by_cosine = page.get_by_label("By cosine").locator("tbody tr")
        scores = by_cosine.locator("td:last-child").all_inner_texts()
        order = ranked.locator("tbody .excerpt").all_inner_texts()
        moves = ranked.locator("tbody td:nth-child(2)").all_inner_texts()

    assert scores == [f"{score:.4f}" for score in sorted(near, reverse=True)]
    assert order == [passages[index] for index in best_first]
    before = [int(index) for index in np.argsort(-near)]
    by = [before.index(index) - place for place, index in enumerate(best_first)]
    assert moves == ["–" if not each else f"{'up' if each > 0 else 'down'} {abs(each)}"
                     for each in by]  # fmt: skip


def test_an_error_says_what_to_do_and_the_texts_stay(browser: Browser, trying: Server) -> None:
    with opened(browser, trying, "try", expects=("status of 50",)) as page:
        page.get_by_label("Texts", exact=True).fill("the hat\nthe vector")
        page.get_by_label("Model", exact=True).select_option("gone")
        page.get_by_role("button", name="Compare").click()

        expect(page.get_by_role("alert")).to_contain_text("nowhere", timeout=SLOW_MS)
        expect(page.get_by_role("alert").locator(".hint")).not_to_be_empty()
        assert page.get_by_label("Texts", exact=True).input_value() == "the hat\nthe vector"
        assert_accessible(page)
        expect(page.get_by_role("button", name="Try again")).to_be_visible()
