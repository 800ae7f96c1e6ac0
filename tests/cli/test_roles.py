"""Names with a role on the command line, and in the `model` of a store."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.vectors import Matrix
from tests.in_process import run_here
from tests.migrate import stores
from tests.serving import Server, run_emberd

TEXTS = [f"the cat sat on mat {number}" for number in range(12)]
CONFIG = """
default: plain
aliases: {{ada: "asks:document"}}
stores: {{notes: {{path: notes, kind: cmem, model: "ada"}}}}
models:
  plain: {{{entry}}}
  asks: {{{entry}, prompts: {{query: "ask ", document: "and then tell "}}}}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model that has a prompt for each role, and one without."""
    home = tmp_path_factory.mktemp("roles")
    tiny_bert(home / "model")
    entry = f"sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean"
    with Server(home, config=CONFIG.format(entry=entry)) as running:
        yield running


@pytest.fixture
def home(served: Server, tmp_path: Path) -> Path:
    """A home with the same models, and no server."""
    (home := tmp_path / "home").mkdir()
    (home / "config.yaml").write_text((served.home / "config.yaml").read_text())
    return home


def vectors(served: Server, **options: object) -> Matrix:
    return np.array(served.embed(*TEXTS, **options)["embeddings"], "<f4")


def rows(stdout: bytes) -> bytes:
    """Return the vectors that `emberd embed` printed."""
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert {line["model"] for line in lines} == {"asks"}
    return np.array([line["embedding"] for line in lines], "<f4").tobytes()


@pytest.mark.parametrize(("name", "role"), [("asks:query", "query"), ("ada", "document")])
def test_embed_takes_them_with_a_server_and_without(
    served: Server, home: Path, name: str, role: str
) -> None:
    expected = vectors(served, model="asks", input_type=role).tobytes()

    assert rows(served.run("embed", *TEXTS, "--model", name).stdout) == expected
    assert rows(run_emberd("embed", *TEXTS, "--model", name, home=home).stdout) == expected
    same = served.run("embed", *TEXTS, "--model", name, "--input-type", role)
    assert rows(same.stdout) == expected


def test_embed_refuses_two_roles(home: Path) -> None:
    done = run_here(home, "embed", "a", "--model", "asks:query", "--input-type", "document")

    assert (done.code, done.out) == (1, "")
    assert "The name 'asks:query' says that the texts are of the role query" in done.err


def test_list_shows_which_models_tell_roles_apart_and_what_aliases_mean(home: Path) -> None:
    listed = {
        row["name"]: row for row in json.loads(run_here(home, "list", "--json").out)["models"]
    }
    lines = run_here(home, "list").out.splitlines()

    assert listed["asks"]["roles"] == {
        "ada": "document",
        "asks:query": "query",
        "asks:document": "document",
    }
    assert (listed["plain"]["roles"], listed["asks"]["aliases"]) == ({}, [])
    shown = {line.split()[0]: line for line in lines[: len(listed) + 1]}
    assert " :query :document " in shown["asks"]
    assert " :query :document " in shown["bge-small"]
    assert ":query" not in shown["minilm-f32"]
    assert "ada means asks:document." in lines


def test_a_role_is_no_default(home: Path) -> None:
    before = (home / "config.yaml").read_text()

    for name in ("asks:query", "ada"):
        done = run_here(home, "use", name, "--yes")

        assert (done.code, done.out) == (1, "")
        assert f"'{name}' states the role" in done.err
        assert "Run `emberd use asks`" in done.err
    assert (home / "config.yaml").read_text() == before


def test_other_commands_take_the_model(served: Server) -> None:
    verified = json.loads(served.run("verify", "asks:query", "--json").stdout)
    (pulled,) = json.loads(served.run("pull", "ada", "--json").stdout)["models"]
    loaded = served.run("load", "asks:document")

    assert {check["model"] for check in verified["checks"]} == {"asks"}
    assert verified["ok"]
    assert pulled["name"] == "asks"
    assert loaded.stdout.startswith(b"asks is ready")


def test_a_store_is_embedded_in_the_role_that_its_users_name(served: Server) -> None:
    stores.make_cmem(served.home / "notes", TEXTS, vectors(served))

    done = served.run("migrate", "run", "notes", "--yes", "--json")

    assert done.returncode == 0, done.stderr
    assert_same(served.home / "notes", vectors(served, model="asks", input_type="document"))
    checked = served.run("migrate", "check", "notes", "--sample", "all", "--json")
    assert json.loads(checked.stdout)["verdict"] == "compatible"


def test_a_store_by_its_path_is_embedded_in_the_role_that_is_named(
    served: Server, tmp_path: Path
) -> None:
    path = str(tmp_path / "notes")
    stores.make_cmem(tmp_path / "notes", TEXTS, vectors(served))

    done = served.run("migrate", "run", path, "--to", "asks:query", "--yes", "--json")
    fits, other = (share_of(served, path, name) for name in ("asks:query", "asks:document"))
    both = served.run("migrate", "check", path, "--model", "asks:query", "--model", "ada")

    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "notes", vectors(served, model="asks", input_type="query"))
    assert (fits, other) == (1.0, 0.0)
    assert both.returncode == 1
    assert b"says that the texts are of the role document, but query is asked for" in both.stderr


def share_of(served: Server, path: str, name: str) -> float:
    """Return the share of a store's rows that are vectors of the model `asks`, in this role."""
    done = served.run("migrate", "check", path, "--model", name, "--json")
    (found,) = (row for row in json.loads(done.stdout)["candidates"] if row["model"] == "asks")
    return float(found["share"])


def assert_same(store: Path, expected: Matrix) -> None:
    found = stores.read(next(store.glob("*.db")))[1]
    assert np.array_equal(found, expected)


def test_config_check_finds_a_store_that_contradicts_itself(home: Path) -> None:
    file = home / "config.yaml"
    file.write_text(file.read_text().replace('model: "ada"', 'model: "ada", input_type: query'))

    done = run_here(home, "config", "check")

    assert done.code == 1
    assert "stores.notes.model: The name 'ada' says that the texts are of the role document" in (
        " ".join(done.err.split())
    )
