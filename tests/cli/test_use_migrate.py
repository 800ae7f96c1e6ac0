"""`emberd use NAME --migrate`: stores, their settings, default and server change together."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.spaces.stores import KnownStore, StoresFile
from emberd.vectors import Matrix
from tests.cosines import cosines
from tests.migrate import stores
from tests.serving import Server, run_emberd

TEXTS = stores.texts(40)
CONFIG = f"""# mine
default: old  # as ever
stores:
  memory: {{path: CMEM}}
  other: {{path: OTHER}}
  apart: {{path: APART, model: old}}
{stores.MODELS}"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    """Vectors of the texts by the model `old`."""
    home = tmp_path_factory.mktemp("old")
    (home / "config.yaml").write_text(stores.MODELS)
    return stores.embed(home, TEXTS, "old")


@pytest.fixture
def folders(old: Matrix, tmp_path: Path) -> dict[str, Path]:
    """Three stores of `old`; the last names its model and does not follow the default."""
    names = ("CMEM", "OTHER", "APART")
    for name in names:
        stores.make_cmem(tmp_path / name, TEXTS, old)
    return {name: tmp_path / name for name in names}


@pytest.fixture
def config(folders: dict[str, Path]) -> str:
    text = CONFIG
    for name, folder in folders.items():
        text = text.replace(name, str(folder))
    return text


def vectors(folder: Path) -> Matrix:
    return stores.read(folder / "memories.db")[1]


def result(done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_stores_settings_default_and_server_change_together(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    with Server(home, config=config) as own:
        own.embed("load")
        before = {name: vectors(folder) for name, folder in folders.items()}

        done = result(own.run("use", "new", "--migrate", "--yes", "--json"))

        new = np.array(own.embed(*TEXTS)["embeddings"], np.float32)  # by the default
        assert own.embed("text")["model"] == "new"
        health = own.http.get("/health").json()
    assert (done["status"], set(done["moved"])) == ("changed", {"memory", "other"})
    for name in ("CMEM", "OTHER"):
        assert cosines(vectors(folders[name]), new).min() > 0.9999
        settings = json.loads((folders[name] / "config.json").read_text())
        assert settings["embedding"]["model"] == "new"
    np.testing.assert_array_equal(vectors(folders["APART"]), before["APART"])
    assert (home / "config.yaml").read_text() == config.replace("old ", "new ")
    assert not [warning for warning in health["warnings"] if warning["code"].startswith("store")]


@pytest.mark.slow
def test_a_store_that_cannot_be_read_keeps_everything_as_it_was(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    (folders["OTHER"] / "memories.db").write_bytes(b"this is no database, whatever its name says")
    with Server(home, config=config) as own:
        before = vectors(folders["CMEM"])

        done = own.run("use", "new", "--migrate", "--yes")

        assert done.returncode == 1
        assert b"OTHER is not a store" in done.stderr
        assert own.embed("text")["model"] == "old"
    assert (home / "config.yaml").read_text() == config
    np.testing.assert_array_equal(vectors(folders["CMEM"]), before)


@pytest.mark.slow
def test_vectors_without_a_text_are_set_aside_when_asked(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    database = stores.connect(folders["OTHER"] / "memories.db")
    database.execute("DELETE FROM memories WHERE id IN (5, 8)")
    database.close()
    command = ("use", "new", "--migrate", "--yes", "--json")
    with Server(home, config=config) as own:
        refused = own.run(*command)
        default = own.embed("text")["model"]

        moved = result(own.run(*command, "--set-aside"))["moved"]

    assert refused.returncode == 1
    assert "--set-aside" in json.loads(refused.stderr)["hint"]
    assert default == "old"
    assert {name: one["set_aside"] for name, one in moved.items()} == {"memory": 0, "other": 2}
    assert len(vectors(folders["CMEM"])) == len(TEXTS)
    assert len(vectors(folders["OTHER"])) == len(TEXTS) - 2


def test_set_aside_without_migrate_is_refused(home: Path) -> None:
    refused = run_emberd("use", "minilm-f32", "--set-aside", "--json", home=home)

    assert refused.returncode != 0
    assert json.loads(refused.stderr)["code"] == "bad_option"
    assert not (home / "config.yaml").exists()


@pytest.mark.slow
def test_a_dry_run_says_what_it_takes_and_changes_nothing(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    with Server(home, config=config) as own:
        before = vectors(folders["CMEM"])

        planned = result(own.run("use", "new", "--migrate", "--dry-run", "--json"))
        refused = own.run("use", "new", "--migrate", "--json")

        assert [(plan["store"], plan["rows"]) for plan in planned["plans"]] == [
            ("memory", len(TEXTS)),
            ("other", len(TEXTS)),
        ]
        assert refused.returncode == 1
        assert b"--yes" in refused.stderr
    assert (home / "config.yaml").read_text() == config
    np.testing.assert_array_equal(vectors(folders["CMEM"]), before)


@pytest.mark.slow
def test_use_alone_says_which_stores_would_not_match(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    with Server(home, config=config) as own:
        own.run("migrate", "run", "memory", "--to", "old", "--yes", "--force")  # stamps it

        report = result(own.run("use", "new", "--dry-run", "--json"))

    assert {store["name"]: store["verdict"] for store in report["stores"]} == {
        "memory": "re-embed",
        "other": "unknown",
    }
    assert "emberd use new --migrate" in report["run"]


@pytest.mark.slow
def test_a_store_is_moved_also_when_what_is_noted_of_it_is_wrong(
    home: Path, config: str, folders: dict[str, Path]
) -> None:
    """This happens if somebody puts back an old copy of it."""
    with Server(home, config=config.replace("old ", "new ")) as own:
        new = np.array(own.embed(*TEXTS)["embeddings"], np.float32)
        noted = StoresFile(home / "state")
        space = own.row("new")["fingerprint"]
        for name, folder in (("memory", "CMEM"), ("other", "OTHER")):
            path = str(folders[folder] / "memories.db")
            wrong = KnownStore(path=path, kind="cmem", model="new", fingerprint=space)
            noted.put(name, wrong)

        moved = result(own.run("use", "new", "--migrate", "--yes", "--json"))
        again = result(own.run("use", "new", "--migrate", "--yes", "--json"))

    assert (set(moved["moved"]), again["status"]) == ({"memory", "other"}, "unchanged")
    for name in ("CMEM", "OTHER"):
        assert cosines(vectors(folders[name]), new).min() > 0.9999


@pytest.mark.slow
def test_two_stores_in_one_file_are_refused_and_move_one_by_one(
    home: Path, old: Matrix, tmp_path: Path
) -> None:
    path = tmp_path / "notes.db"
    database = stores.connect(path)
    for table in "ab":
        database.execute(
            f"CREATE VIRTUAL TABLE {table} USING vec0(embedding float[64], +body text)"
        )
        for at, text in enumerate(TEXTS[:30]):
            row = (at + 1, old[at].tobytes(), text)
            database.execute(f"INSERT INTO {table}(rowid, embedding, body) VALUES (?, ?, ?)", row)  # noqa: S608
    database.close()
    named = "\n".join(f"  {t}: {{path: {path}, options: {{table: {t}}}}}" for t in "ab")
    config = f"default: old\nstores:\n{named}\n{stores.MODELS}"
    with Server(home, config=config) as own:
        refused = own.run("use", "new", "--migrate", "--yes")

        assert refused.returncode == 1
        assert b"a and b are in the same file" in refused.stderr
        assert (home / "config.yaml").read_text() == config
        assert not path.with_name("notes.db.emberd").exists()

        for name in "ab":  # as the hint says
            to = ("--to", "new", "--no-keep-backup", "--yes", "--json")
            result(own.run("migrate", "run", name, *to))
        result(own.run("use", "new", "--json", "--yes"))
        new = np.array(own.embed(*TEXTS[:30])["embeddings"], np.float32)
    for table in "ab":
        assert cosines(stores.read(path, table)[1], new).min() > 0.9999
