"""The picture: well-formed, narrow, and without anything of the user's texts."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from emberd.compare.picture import draw

SVG = "{http://www.w3.org/2000/svg}"
COUNTS = [0, 0, 0, 0, 1, 2, 7, 90, 500, 300, 100]
CHARACTER = 7.3  # pixels, on average, at 13


def model(name: str, score: float | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    row = {
        "model": name, "dimensions": 384, "texts_per_s": 512.4, "query_ms": 3.21,
        "memory_bytes": 150 * 2**20, "vectors_bytes": 4 * 384 * 1000,
        "score": None if score is None else {"ndcg": score, "recall": 0.5},
    }  # fmt: skip
    return row | changes


def comparison(*models: dict[str, Any], **changes: Any) -> dict[str, Any]:  # noqa: ANN401
    row = {
        "texts": {"total": 123_456, "equal": 0, "used": 2000},
        "queries": {"given": False, "total": 2000, "used": 1000},
        "nearest": 10,
        "models": models,
        "against": [
            {"model": each["model"], "kept": 8.4, "counts": COUNTS,
             "examples": [{"query": "secret", "only_first": ["secret"], "only_other": []}]}
            for each in models[1:]
        ],
        "rerank": None,
    }  # fmt: skip
    return row | changes


RERANKED = {
    "model": "a-re-ranker-with-a-name-that-is-longer-than-the-picture", "candidates": 50,
    "query_ms": 231.2, "first_kept": 0.4, "before": {"ndcg": 0.4, "recall": 0.5},
    "after": {"ndcg": 0.5, "recall": 0.6}, "examples": [{"query": "secret"}],
}  # fmt: skip
LONG = "a-model-of-our-own-with-a-very-long-name"
DRAWN = [
    comparison(model("minilm"), model("minilm-f32", texts_per_s=3, memory_bytes=5 * 2**30)),
    comparison(model("minilm", 0.41), model(f"{LONG}-a", 0.5), model(f"{LONG}-b", 0.0)),
    comparison(model("<a&b>"), rerank=RERANKED),
    comparison(model("minilm"), model("minilm-f32"), against=[]),  # few texts
]


@pytest.mark.parametrize("row", DRAWN)
def test_nothing_leaves_a_narrow_page_and_no_text_is_shown(row: dict[str, Any]) -> None:
    drawn = draw(row)
    root = ET.fromstring(drawn)  # noqa: S314 - ours

    high = float(root.attrib["height"])
    assert root.attrib["width"] == "390"
    for text in root.iter(f"{SVG}text"):
        at, wide = float(text.attrib["x"]), CHARACTER * len(text.text or "")
        if "mid" in text.attrib["class"]:
            at -= wide / 2
        assert at >= 0 and at + wide <= 390, text.text
        assert 0 < float(text.attrib["y"]) < high
    for bar in root.iter(f"{SVG}rect"):
        assert float(bar.attrib.get("x", 0)) + float(bar.attrib["width"]) <= 390
    assert "secret" not in drawn
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def test_bars_are_as_long_as_their_values() -> None:
    root = ET.fromstring(draw(DRAWN[0]))  # noqa: S314 - ours

    wide = [float(bar.attrib["width"]) for bar in root.iter(f"{SVG}rect")][1:]
    counts, bars = wide[:11], wide[11:]
    high = [float(bar.attrib["height"]) for bar in root.iter(f"{SVG}rect")][1:12]
    assert len({*counts}) == 1
    assert [round(each / max(high), 2) for each in high] == [
        0, 0, 0, 0, 0, 0, 0.01, 0.18, 1, 0.6, 0.2
    ]  # fmt: skip
    assert bars[1] / bars[0] == pytest.approx(3 / 512.4, abs=1e-3)  # texts per second
    assert bars[2] == bars[3]  # a query
    assert bars[4] / bars[5] == pytest.approx(150 / (5 * 1024), abs=1e-3)  # memory


def test_long_names_stay_different() -> None:
    root = ET.fromstring(draw(DRAWN[1]))  # noqa: S314 - ours

    shown = [text.text or "" for text in root.iter(f"{SVG}text")]
    assert {name[-2:] for name in shown if re.fullmatch(r"a-model…\S+", name)} == {"-a", "-b"}


def test_it_is_for_light_and_dark_pages() -> None:
    drawn = draw(DRAWN[0])

    assert "prefers-color-scheme: dark" in drawn
    looks = {*re.findall(r'class="([\w ]+)"', drawn)}
    for look in " ".join(looks).split():
        assert f".{look} {{" in drawn
