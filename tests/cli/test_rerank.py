"""`emberd rerank`: texts from arguments or stdin, sorted, with a server and without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rerankers import CONFIG, FOLDER, LOGITS, ORDER, QUERY, TEXTS, sigmoid
from tests.serving import Server, run_emberd

LINES = "\n".join(TEXTS).encode()


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


@pytest.fixture(params=["a server", "no server"])
def place(request: pytest.FixtureRequest, reranker: Server, home: Path) -> Path:
    """A home where a server runs, and one where none does."""
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(CONFIG)
    return reranker.home if request.param == "a server" else home


def test_lines_are_sorted(place: Path) -> None:
    done = run_emberd("rerank", QUERY, home=place, stdin=LINES)

    assert done.returncode == 0, done.stderr
    rows = [line.split("  ", 1) for line in done.stdout.decode().splitlines()]
    assert [text for _, text in rows] == [TEXTS[index] for index in ORDER]
    assert [float(score) for score, _ in rows] == pytest.approx(
        [sigmoid(LOGITS[index]) for index in ORDER], abs=1e-3
    )
    (warning,) = (line for line in done.stderr.decode().splitlines() if "warning" in line)
    assert "texts 5" in warning


def test_the_best_few_for_programs(place: Path) -> None:
    done = run_emberd("rerank", "--json", "--top-n", "2", QUERY, *TEXTS, home=place)

    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == ORDER[:2]
    assert [row["text"] for row in rows] == [TEXTS[index] for index in ORDER[:2]]
    assert [row["logit"] for row in rows] == pytest.approx(sorted(LOGITS)[:-3:-1], abs=1e-4)


def test_more_texts_than_one_request_has(place: Path) -> None:
    texts = [TEXTS[ORDER[-1]]] * 300
    texts[280] = TEXTS[ORDER[0]]
    done = run_emberd(
        "rerank", "--json", "--top-n", "1", QUERY, home=place, stdin="\n".join(texts).encode()
    )

    assert json.loads(done.stdout)["index"] == 280


def test_a_model_that_embeds_is_refused_by_name(place: Path) -> None:
    done = run_emberd("rerank", "--model", "minilm", QUERY, "text", home=place)

    assert done.returncode == 1
    assert b"tiny" in done.stderr


def test_one_that_is_added_is_pulled_checked_listed_and_asked(home: Path) -> None:
    home.mkdir()

    added = run_emberd("add", str(FOLDER), "--name", "mine", "--yes", home=home)
    assert added.returncode == 0, added.stderr
    assert b"kind: rerank" in added.stdout
    listed = run_emberd("list", "--json", home=home)
    kinds = {row["name"]: row["kind"] for row in json.loads(listed.stdout)["models"]}
    assert kinds["mine"] == kinds["ms-marco-minilm"] == "rerank"
    assert kinds["minilm"] == "embed"
    done = run_emberd("rerank", "--json", "--model", "mine", QUERY, *TEXTS, home=home)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["index"] for row in rows] == ORDER
    assert [row["logit"] for row in rows] == pytest.approx(sorted(LOGITS)[::-1], abs=1e-4)


def test_it_does_not_become_the_model_that_embeds(home: Path) -> None:
    home.mkdir()

    refused = run_emberd("add", str(FOLDER), "--name", "mine", "--default", "--yes", home=home)

    assert refused.returncode != 0
    assert b"default_reranker: mine" in refused.stderr
    assert not (home / "config.yaml").exists()
