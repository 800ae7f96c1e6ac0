"""nDCG and recall, against figures computed by hand, and the files that say what is relevant."""

import math
from pathlib import Path

import pytest

from emberd.compare.relevance import read_relevant, score
from emberd.errors import BadOptionError

GRADES = {"q1": {"d1": 2, "d2": 1, "d3": 0}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    "content",
    [
        "q1 0 d1 2\nq1 0 d2 1\n\nq1 0 d3 0\nq2 0 d2 1\n",  # TREC
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq1\td3\t0\nq2\td2\t1\n",  # BEIR
        "q1\td1\t2\r\nq1\td2\t1\r\nq1\td3\t0\r\nq2\td2\t1\r\n",  # without its heading
        "q1\t0\td1\t2\nq1 Q0  d2 1\nq1\tQ0\td3\t0\nq2 0 d2 1",
    ],
)
def test_both_forms_are_read(tmp_path: Path, content: str) -> None:
    file = tmp_path / "relevant"
    file.write_text(content)

    assert read_relevant(file) == GRADES


def test_another_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "relevant"
    for line in ("q1 d1", "q1 0 d1 very", "a b c d 1"):
        file.write_text(f"q1 0 d1 1\n{line}\n")
        with pytest.raises(BadOptionError, match="Line 2"):
            read_relevant(file)


def test_the_figures_are_those_of_a_pencil() -> None:
    # gains 1, 0, 2 of grades 2 and 1; then what nobody judged, and a text below the first three
    found = [["d2", "d9", "d1", "d3"], ["d7", "d8", "d9", "d2"]]
    ndcg = (1 / math.log2(2) + 2 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))

    first = score(found[:1], [GRADES["q1"]], 3)
    assert [first.ndcg, first.recall] == pytest.approx([ndcg, 1.0])
    both = score(found, [GRADES["q1"], GRADES["q2"]], 3)
    assert [both.ndcg, both.recall] == pytest.approx([ndcg / 2, 0.5])
    assert score(found[1:], [GRADES["q2"]], 4).ndcg == pytest.approx(1 / math.log2(5))


def test_negative_grades_are_not_relevant_and_more_than_fit_are_no_loss() -> None:
    grades = {"a": -1, "b": 1, "c": 1, "d": 1}

    found = score([["b", "c"]], [grades], 2)

    assert [found.ndcg, found.recall] == pytest.approx([1.0, 2 / 3])
    assert score([["a", "b"]], [grades], 2).ndcg == pytest.approx(
        (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    )
