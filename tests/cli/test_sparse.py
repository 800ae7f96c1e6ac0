"""`emberd embed` with a sparse model, with a server and without."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Server, run_emberd
from tests.sparse_models import CONFIG, FAR, SPARSE, dense, reference

GIVEN = reference("distilbert")
LINES = "\n".join(GIVEN["texts"]).encode()


@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("home"), config=CONFIG) as server:
        yield server


@pytest.fixture(params=["a server", "no server"])
def place(request: pytest.FixtureRequest, sparse: Server, home: Path) -> Path:
    """A home where a server runs, and one where none does."""
    home.mkdir(exist_ok=True)
    (home / "config.yaml").write_text(CONFIG)
    return sparse.home if request.param == "a server" else home


@pytest.mark.parametrize(("role", "side"), [("document", "documents"), ("query", "queries")])
def test_lines_become_sparse_vectors(place: Path, role: str, side: str) -> None:
    options = ("--model", "routed", "--input-type", role)
    done = run_emberd("embed", *options, home=place, stdin=LINES)

    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all("embedding" not in row for row in rows)
    assert dense(rows, 149) == pytest.approx(dense(GIVEN[side], 149), abs=FAR)
    assert [row["truncated"] for row in rows] == [False] * 5 + [True]


def test_a_store_is_not_moved_to_a_sparse_model(place: Path) -> None:
    done = run_emberd("use", "tiny", home=place)

    assert done.returncode != 0
    assert b"tiny makes sparse vectors of texts; needed is a model that embeds" in done.stderr


def test_list_says_which_are_sparse(place: Path) -> None:
    done = run_emberd("list", "--json", home=place)
    rows = {row["name"]: row for row in json.loads(done.stdout)["models"]}
    assert (rows["tiny"]["kind"], rows["minilm"]["kind"]) == ("sparse", "embed")


@pytest.mark.parametrize(
    ("name", "options", "by"),
    [
        ("bert", (), "modules.json (SpladePooling)"),
        ("distilbert", (), "modules.json (SpladePooling)"),
        ("roberta", ("--kind", "sparse"), "modules.json (SpladePooling)"),
        ("xlm-roberta", ("--kind", "sparse"), "--kind"),
        ("bge-m3", ("--kind", "sparse"), "--kind"),
    ],
)
def test_an_entry_is_proposed(name: str, options: tuple[str, ...], by: str, home: Path) -> None:
    options = (*options, "--name", "mine", "--json")
    done = run_emberd("add", str(SPARSE / name), *options, home=home)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["open"] == []
    assert said["origins"]["kind"] == by
    entry = said["entry"]
    assert entry["kind"] == "sparse"
    config = json.loads((SPARSE / name / "config.json").read_text())
    assert entry["dimensions"] == config["vocab_size"]
    assert entry["max_tokens"] == reference(name)["max_tokens"]
    assert not {"pooling", "normalize", "prompts"} & {*entry}


def test_an_accepted_entry_works(home: Path) -> None:
    done = run_emberd("add", str(SPARSE / "bert"), "--name", "mine", "--yes", home=home)
    assert done.returncode == 0, done.stderr + done.stdout
    text = run_emberd("embed", "--model", "mine", "it glows while there is air", home=home)
    assert "indices" in json.loads(text.stdout)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("bert", ("--kind", "embed"), "contradicts"),
        ("bert", ("--kind", "rerank"), "contradicts"),
    ],
)
def test_what_is_not_a_kind_of_this_model(
    name: str, options: tuple[str, ...], said: str, home: Path
) -> None:
    done = run_emberd("add", str(SPARSE / name), *options, home=home)
    assert done.returncode != 0
    assert said in done.stderr.decode()


def test_a_head_that_nothing_calls_sparse_is_noted(home: Path) -> None:
    for name, note in (("xlm-roberta", "`--kind sparse`"), ("bge-m3", "sparse vectors, too")):
        options = ("--name", "mine", "--pooling", "cls", "--json")
        done = run_emberd("add", str(SPARSE / name), *options, home=home)
        assert any(note in each for each in json.loads(done.stdout)["notes"]), done.stdout
