"""Looks of models: never two alike, each the same everywhere, and none is the server's."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.serving import Server
from tests.web.browsing import LOOKS, Scheme, assert_accessible, assert_nothing_is_cut, opened
from tests.web.test_page import TINY

NAMES = [f"model-{number}" for number in range(17)]
SEEN = """each => {
  const style = getComputedStyle(each);
  return style.backgroundColor + style.backgroundImage;
}"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has ten models loaded, and has room for seventeen."""
    entry = f"{{sources: [{{path: {TINY}}}], dimensions: 64, pooling: mean}}"
    models = "".join(f"  {name}: {entry}\n" for name in NAMES)
    limits = "limits: {max_loaded: 20, memory_budget: 20GiB}\n"
    home = tmp_path_factory.mktemp("many")
    with Server(home, config=f"{limits}default: {NAMES[0]}\nmodels:\n{models}") as running:
        for name in NAMES[:10]:
            running.embed("a", model=name)
        yield running


def looks(legend: Locator) -> dict[str, str]:
    """Return how each name of a legend is marked."""
    return {
        each.locator(".wrap").inner_text(): each.locator(".swatch").evaluate(SEEN)
        for each in legend.all()
    }


def memory_chart(page: Page) -> Locator:
    """Return the legend of the chart that has a line for each model."""
    return page.locator("figure", has=page.get_by_role("heading", name="Memory by model")).locator(
        ".legend-list li"
    )


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_ten_models_and_the_server_are_told_apart(
    browser: Browser, many: Server, width: int, scheme: Scheme
) -> None:
    with opened(browser, many, width=width, scheme=scheme) as page:
        expect(memory_chart(page).filter(has_text="model-")).to_have_count(10)
        drawn = looks(memory_chart(page))
        told = looks(page.locator(".memory + .legend-list li"))
        parts = page.locator(".memory span").evaluate_all(f"all => all.map({SEEN})")
        cards = {
            each.get_attribute("aria-label"): each.locator("h3 .swatch").evaluate(SEEN)
            for each in page.locator("article").all()
        }

        assert_accessible(page)
        assert_nothing_is_cut(page)

    assert len(set(drawn.values())) == len(drawn) == 11
    assert drawn.pop("the server itself")
    assert drawn == told == cards
    assert parts == list(told.values())


@pytest.mark.slow
def test_more_models_than_looks_are_drawn_as_others(browser: Browser, many: Server) -> None:
    for name in NAMES:
        many.embed("a", model=name)
    with opened(browser, many) as page:
        others = page.locator(".memory + .legend-list li").filter(has_text="2 others: ")
        expect(others).to_have_count(1)
        expect(memory_chart(page).filter(has_text="2 others")).to_have_count(1)
        drawn = looks(memory_chart(page))

    assert len(set(drawn.values())) == len(drawn) == 15 + 2
