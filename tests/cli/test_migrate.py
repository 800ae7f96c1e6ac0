"""`emberd migrate` as people and scripts run it."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.spaces.stores import KnownStore, StoresFile
from emberd.vectors import Matrix
from tests.cli.test_use_migrate_stopped import STOPPING
from tests.migrate import stores
from tests.serving import Server, clean_environ, run_emberd

ROWS = 40
STORES = "stores: {notes: {kind: cmem, path: notes}, wide: {path: wide, model: new}}"
CONFIG = f"{STORES}\n{stores.MODELS}"
SERVED = CONFIG.replace("new}}", "new}, moved: {path: moved}}") + "default: old\n"


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return stores.texts(ROWS)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Iterator[Server]:
    """A server whose home has three configured stores, all of vectors of `old`."""
    home = tmp_path_factory.mktemp("served") / "home"
    with Server(home, config=SERVED) as server:
        old = embedded(server, texts)
        embedded(server, texts[:1], "new")  # no check unloads what was loaded before
        for name in ("notes", "wide", "moved"):
            stores.make_cmem(home / name, texts, old)
        yield server


def embedded(server: Server, texts: list[str], model: str = "old") -> Matrix:
    return np.array(server.embed(*texts, model=model)["embeddings"], np.float32)


@pytest.fixture
def home(served: Server, tmp_path: Path) -> Path:
    """A home with two configured stores, both of vectors of `old`, and no server."""
    home = tmp_path / "home"
    for name in ("notes", "wide"):
        shutil.copytree(served.home / name, home / name)
    (home / "config.yaml").write_text(f"{CONFIG}default: old\n")
    return home


def test_check_answers_for_scripts(served: Server) -> None:
    fitting = served.run("migrate", "check", "notes", "--json")
    named = served.run("migrate", "check", str(served.home / "wide"), "--json")
    said = served.run("migrate", "check", "wide", "--sample", "30")

    report = json.loads(fitting.stdout)
    assert fitting.returncode == 0
    assert report["verdict"] == "compatible"
    assert report["model"] == "old"
    assert report["mean_cosine"] > 0.9999
    assert (report["rows"], report["dimensions"]) == (ROWS, 64)
    assert {each["model"] for each in report["candidates"]} == {"old", "new"}
    # its users ask for another model than the default, and that is what it has to fit
    assert (named.returncode, json.loads(named.stdout)["default"]) == (3, "new")
    assert said.returncode == 3
    assert b"made by old; the model that its users name is new" in said.stdout
    assert b"emberd migrate run wide --to new" in said.stdout


def test_mixed_and_unknown_have_exit_codes_of_their_own(
    served: Server, texts: list[str], tmp_path: Path
) -> None:
    vectors = embedded(served, texts)
    vectors[:9] = embedded(served, texts[:9], "new")
    stores.make_cmem(tmp_path / "mixed", texts, vectors)
    noise = np.random.default_rng(1).standard_normal((20, 64)).astype("<f4")
    stores.make_cmem(tmp_path / "noise", texts[:20], noise)

    mixed = served.run("migrate", "check", str(tmp_path / "mixed"))
    unknown = served.run("migrate", "check", str(tmp_path / "noise"))

    assert mixed.returncode == 4
    assert f"new: 9 of {ROWS}: 1, 2, 3, 4, 5, 6, 7, 8, ...".encode() in mixed.stdout
    assert unknown.returncode == 5


def strict(answer: bytes) -> dict[str, Any]:
    """Read JSON as other languages do: without Infinity and NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    read: dict[str, Any] = json.loads(answer, parse_constant=refuse)
    return read


@pytest.mark.parametrize(
    ("dimensions", "code", "words"),
    [
        (64, 0, "compatible: the store is empty, and its dimension fits the default, old"),
        pytest.param(
            128,
            3,
            "re-embed: the store is empty, and its dimension does not fit the default, old",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_empty_store_is_called_empty(home: Path, dimensions: int, code: int, words: str) -> None:
    shutil.rmtree(home / "notes")
    stores.make_cmem(home / "notes", [], np.zeros((0, dimensions), "<f4"))
    noted = StoresFile(home / "state")
    noted.put("notes", KnownStore(path="notes", kind="cmem", model="mpnet", fingerprint="aa"))

    said = run_emberd("migrate", "check", "notes", home=home)
    checked = run_emberd("migrate", "check", "notes", "--json", home=home)
    left = noted.read()
    planned = run_emberd("migrate", "run", "notes", "--dry-run", home=home)
    moved = run_emberd("migrate", "run", "notes", "--to", "old", "--yes", "--json", home=home)

    assert (said.returncode, checked.returncode) == (code, code)
    assert words in said.stdout.decode()
    assert left == {}  # of what it held when it had rows
    assert (strict(checked.stdout)["rows"], strict(checked.stdout)["model"]) == (0, None)
    assert "rows/s" not in planned.stdout.decode()
    assert (strict(moved.stdout)["rows"], strict(moved.stdout)["lowest_cosine"]) == (0, None)


@pytest.mark.slow
def test_a_store_of_rows_without_text_is_not_called_compatible(home: Path) -> None:
    database = stores.connect(home / "notes" / "memories.db")
    database.execute("UPDATE memories SET content = NULL")
    database.close()

    said = run_emberd("migrate", "check", "notes", home=home)

    assert said.returncode == 5
    assert "unknown: no row has a text to compare with." in said.stdout.decode()


@pytest.mark.slow
def test_vectors_without_a_text_are_named_and_set_aside_when_asked(home: Path) -> None:
    database = stores.connect(home / "notes" / "memories.db")
    database.execute("DELETE FROM memories WHERE id IN (5, 8)")
    database.execute("INSERT INTO memories(id, content) VALUES (500, 'no vector')")
    database.close()
    run = ["migrate", "run", "notes", "--to", "new", "--yes"]

    checked = run_emberd("migrate", "check", "notes", home=home)
    reported = strict(run_emberd("migrate", "check", "notes", "--json", home=home).stdout)
    refused = run_emberd(*run, home=home)
    planned = strict(run_emberd(*run, "--set-aside", "--dry-run", "--json", home=home).stdout)
    moved = run_emberd(*run, "--set-aside", home=home)

    assert "Vectors without a text: 5, 8." in checked.stdout.decode()
    assert "Texts without a vector: 500." in checked.stdout.decode()
    assert (reported["health"]["textless"], reported["health"]["vectorless"]) == ([5, 8], [500])
    assert refused.returncode == 1
    assert "2 vectors have no text, or one that is NULL or empty (5, 8)" in refused.stderr.decode()
    assert "--set-aside" in refused.stderr.decode()
    assert (planned["without_text_keys"], planned["without_vector_keys"]) == ([5, 8], [500])
    assert moved.returncode == 0, moved.stderr
    assert "2 vectors without a text" in moved.stdout.decode()
    assert "the table emberd_set_aside" in moved.stdout.decode()
    assert len(stores.read(home / "notes" / "memories.db")[0]) == ROWS - 2


@pytest.mark.slow
def test_a_column_with_the_vectors_again_is_told_and_moves_when_asked(home: Path) -> None:
    path = home / "notes" / "memories.db"
    database = stores.connect(path)
    database.execute("CREATE TABLE again AS SELECT rowid AS id, embedding AS raw FROM vec_memories")
    database.close()
    run = ["migrate", "run", "notes", "--to", "new", "--yes"]

    checked = run_emberd("migrate", "check", "notes", home=home)
    (reported,) = strict(run_emberd("migrate", "check", "notes", "--json", home=home).stdout)[
        "copies"
    ]
    moved = run_emberd(*run, home=home)
    undone = run_emberd("migrate", "undo", "notes", "--yes", home=home)
    both = run_emberd(*run, "-o", "also=again.raw", "--json", home=home)

    assert re.search(f"again.raw .* {ROWS} BLOBs", checked.stdout.decode())
    assert (reported["column"], reported["same"], reported["moves"]) == ("again.raw", ROWS, False)
    assert f"Warning: again.raw still holds {ROWS} of the old vectors." in moved.stdout.decode()
    assert (moved.returncode, undone.returncode, both.returncode) == (0, 0, 0), both.stderr
    assert strict(both.stdout)["copies"][0]["moves"]
    database = stores.connect(path)
    query = (
        "SELECT count(*) FROM again JOIN vec_memories v ON v.rowid = again.id AND raw = embedding"
    )
    assert database.execute(query).get == ROWS
    database.close()


@pytest.mark.slow
def test_run_asks_first_and_a_dry_run_changes_nothing(home: Path) -> None:
    before = (home / "notes" / "memories.db").read_bytes()

    unasked = run_emberd("migrate", "run", "notes", "--to", "new", home=home)
    dry = run_emberd("migrate", "run", "notes", "--to", "new", "--dry-run", home=home)

    assert unasked.returncode == 1
    assert b"hint: Add --yes" in unasked.stderr
    assert dry.returncode == 0
    assert b"of disk, " in dry.stdout
    assert b"riters wait about" in dry.stdout
    assert (home / "notes" / "memories.db").read_bytes() == before
    assert not (home / "notes" / "memories.db.emberd").exists()


def test_run_status_undo_and_the_servers_warning(served: Server) -> None:
    def warnings() -> list[dict[str, str]]:
        """Return those about this store; other tests work with the others."""
        every: list[dict[str, str]] = served.http.get("/health").json()["warnings"]
        return [each for each in every if each["message"].startswith("The store moved ")]

    assert warnings() == []
    moved = served.run("migrate", "run", "moved", "--to", "new", "--yes")
    (warning,) = warnings()
    again = served.run("migrate", "run", "moved", "--to", "new", "--yes")
    status = json.loads(served.run("migrate", "status", "moved", "--json").stdout)
    said = served.run("migrate", "status", "moved").stdout.decode()
    undone = served.run("migrate", "undo", "moved", "--yes")
    after = warnings()

    assert moved.returncode == 0, moved.stderr
    assert b"run `emberd use new` now" in moved.stdout
    assert warning["code"] == "store_mismatch"
    assert "moved holds vectors made by new" in warning["message"]
    assert "emberd migrate run moved --to old" in warning["hint"]
    assert again.returncode == 0
    assert b"already in the space of new" in again.stdout
    assert len(status["backups"]) == 1
    assert status["stamp"]["model"] == "new"
    assert "Backup from before new" in said
    assert undone.returncode == 0, undone.stderr
    assert b"`emberd migrate check moved`" in undone.stdout
    assert after == []


@pytest.mark.slow
def test_of_a_store_whose_users_name_a_model_that_is_the_one_to_change(home: Path) -> None:
    done = run_emberd("migrate", "run", "wide", "--to", "old", "--yes", "--force", home=home)

    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    assert "Its users ask for new: set `stores.wide.model` to old now" in said
    assert "emberd use" not in said


@pytest.mark.slow
def test_what_is_said_after_an_undo_is_what_has_to_be_done(home: Path) -> None:
    def undone(store: str, to: str) -> str:
        run_emberd("migrate", "run", store, "--to", to, "--yes", "--force", home=home)
        return run_emberd("migrate", "undo", store, "--yes", home=home).stdout.decode()

    run_emberd("migrate", "check", "wide", home=home)
    run_emberd("migrate", "check", "notes", home=home)
    assert "Its vectors fit the default, old." in undone("notes", "new")
    said = undone("wide", "new")
    assert "vectors of old, but `stores.wide.model` is new: set" in said
    assert "emberd use" not in said
    (home / "config.yaml").write_text(f"default: new\n{CONFIG}")
    said = undone("notes", "new")
    assert "the default is new: `emberd use old`" in said


@pytest.mark.slow
def test_of_a_store_that_is_not_configured_an_undo_does_not_take_the_default_for_granted(
    home: Path,
) -> None:
    store = str(shutil.copytree(home / "notes", home / "elsewhere"))
    run_emberd("migrate", "run", store, "--to", "new", "--yes", home=home)
    first = run_emberd("migrate", "undo", store, "--yes", home=home).stdout.decode()

    assert "the model that its users ask for, or the default" in first


@pytest.mark.slow
def test_a_check_tells_the_server_too(home: Path) -> None:
    (home / "config.yaml").write_text(f"default: new\n{CONFIG}")
    with Server(home) as server:
        server.run("load", "old")
        checked = server.run("migrate", "check", "notes")
        (warning,) = server.http.get("/health").json()["warnings"]
        shown = server.run("ps")
        states = server.row("old")["state"], server.row("new")["state"]

    assert states == ("ready", "ready")  # one was loaded before, the other is the default
    assert checked.returncode == 3
    assert "made by old, and the default is new" in warning["message"]
    assert b"notes holds vectors" in shown.stderr


def of_all(server: Server, default: str) -> tuple[str | None, str | None, list[str]]:
    """Return whose vectors of `notes` are by `status`, by `use`, and by the server's warnings."""
    status = server.run("migrate", "status", "notes", "--json")
    plan = server.run("use", default, "--dry-run", "--json")
    warnings = [each["message"] for each in server.http.get("/health").json()["warnings"]]
    noted = json.loads(status.stdout)["noted"]
    verdicts = {store["name"]: store["verdict"] for store in json.loads(plan.stdout)["stores"]}
    return noted and noted["model"], verdicts.get("notes"), warnings


@pytest.mark.slow
def test_after_an_undo_status_use_and_server_say_the_same(home: Path) -> None:
    (home / "config.yaml").write_text(f"default: new\n{CONFIG}")
    with Server(home) as server:
        server.run("migrate", "check", "notes")
        server.run("migrate", "run", "notes", "--yes")
        moved = of_all(server, "new")

        server.run("migrate", "undo", "notes", "--yes")

        assert moved == ("new", None, [])
        whose, verdict, (warning,) = of_all(server, "new")
        said = server.run("migrate", "status", "notes").stdout.decode()
    assert (whose, verdict) == ("old", "re-embed")
    assert "notes holds vectors made by old, and the default is new" in warning
    assert "It was found to hold vectors of old." in said


@pytest.mark.slow
def test_a_store_that_was_moved_before_it_had_a_name_is_judged_alike(home: Path) -> None:
    (home / "config.yaml").write_text(f"{stores.MODELS}default: old\n")
    path = str(home / "notes" / "memories.db")
    run_emberd("migrate", "run", path, "--to", "new", "--yes", home=home)
    (home / "config.yaml").write_text(f"{CONFIG}default: old\n")
    with Server(home) as server:
        whose, verdict, (warning,) = of_all(server, "old")
        server.run("migrate", "undo", "notes", "--yes")
        undone = of_all(server, "new")

    assert (whose, verdict) == ("new", "re-embed")
    assert "notes holds vectors made by new, and the default is old" in warning
    assert undone == (None, "unknown", [])


@pytest.mark.slow
def test_a_server_that_looks_at_stores_imports_nothing_for_it(home: Path) -> None:
    with Server(home, forked=False) as server:
        server.run("migrate", "check", "notes")
        server.http.get("/health")
        maps = Path(f"/proc/{server.process.pid}/maps")
        if not maps.exists():
            pytest.skip("no /proc here to see what a process has mapped")
        mapped = maps.read_text()

    assert "apsw" not in mapped
    assert "numpy" not in mapped


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "nots"], "hint: Did you mean notes?"),
        (["check", "notes", "--sample", "none"], "--sample none: expected a number"),
        (["check", "notes", "--sample", "²"], "--sample ²: expected a number"),
        (["check", "notes", "-o", "table"], "--option table: expected KEY=VALUE"),
        (["check", "notes", "-o", "table=v"], "has no option 'table'"),
        (["check", "notes", "--model", "mpnet"], "hint: Run `emberd pull mpnet` first."),
        (["check", "notes", "--model", "old", "--model", "mpnet"], "mpnet is not on this"),
        (["check", "notes", "--kind", "pinecone"], "There is no store kind 'pinecone'"),
        (["run", "notes", "--to", "mpnet", "--yes"], "hint: Run `emberd pull mpnet` first."),
        (["run", "notes", "--to", "nothing", "--yes"], "nothing"),
        (["undo", "notes", "--yes"], "no backup"),
    ],
)
def test_what_cannot_be_is_said_in_two_lines(home: Path, arguments: list[str], words: str) -> None:
    done = run_emberd("migrate", *arguments, home=home)

    assert done.returncode == 1
    assert words in done.stderr.decode()
    assert done.stderr.decode().startswith("error: ")


@pytest.mark.slow
def test_commands_to_run_can_be_given_to_a_shell(home: Path) -> None:
    """The store's path would be split by a shell, and its options are needed again."""
    folder = home / "it's mine; rm"
    folder.mkdir()
    path = Path(shutil.move(home / "notes" / "memories.db", folder / "notes.db"))
    options = ("-o", "text=memories.content", "-o", "id=id", "--kind", "sqlite-vec")
    (home / "config.yaml").write_text(f"{stores.MODELS}default: new\n")

    checked = run_emberd("migrate", "check", str(path), *options, home=home)
    (command,) = re.findall("`(emberd migrate run .*)`", checked.stdout.decode())
    moved = run_emberd(*shlex.split(command)[1:], "--yes", home=home)
    (command,) = re.findall("`(emberd migrate undo .*)`", moved.stdout.decode())
    undone = run_emberd(*shlex.split(command)[1:], "--yes", home=home)

    assert checked.returncode == 3
    assert moved.returncode == 0, moved.stderr
    assert undone.returncode == 0, undone.stderr


def test_config_knows_stores(home: Path) -> None:
    shown = run_emberd("config", "show", home=home)
    again = home / "again.yaml"
    again.write_bytes(shown.stdout)
    checked = run_emberd("--config", str(again), "config", "check", home=home)
    values = json.loads(run_emberd("config", "show", "--json", home=home).stdout)

    assert b"  notes: {path: notes, kind: cmem}" in shown.stdout
    assert checked.returncode == 0, checked.stderr
    assert values["stores"]["wide"]["model"] == "new"
    assert values["origins"]["stores.notes"].endswith("config.yaml:1")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("stores: {a: {kind: cmem}}", "stores.a.path: "),
        ("stores: {a: {path: x, pth: y}}", "stores.a.pth: there is no such setting"),
        ("stores: {a: x.db}", "stores.a: 'x.db' should be a group of keys"),
        ("stores: [x.db]", "stores: it should be"),
        ("stores: {a: {path: x, options: {k: [1]}}}", "stores.a.options.k: it should be"),
    ],
)
def test_wrong_stores_in_the_config_are_named(home: Path, config: str, words: str) -> None:
    (home / "config.yaml").write_text(config)

    done = run_emberd("config", "check", home=home)

    assert done.returncode == 1
    assert words in done.stderr.decode()


@pytest.mark.slow
def test_ctrl_c_says_that_the_same_command_goes_on_and_it_does(home: Path) -> None:
    command = ["migrate", "run", "notes", "--to", "new", "--yes", "--batch", "1"]
    staging = {"module": "emberd.migrate.sidecar", "owner": "Sidecar", "method": "put"}
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING.format(**staging, count=3), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(home),
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    _, complaint = process.communicate(timeout=30)

    done = run_emberd(*command, "--json", home=home)

    assert process.returncode == 130
    assert complaint.decode() == (
        "Stopped. Run the same command to continue from here:\n"
        "  emberd migrate run notes --to new --yes --batch 1\n"
    )
    assert json.loads(done.stdout)["status"] == "moved"


@pytest.mark.slow
def test_ctrl_c_in_an_undo_says_that_the_same_command_ends_it_and_it_does(home: Path) -> None:
    run_emberd("migrate", "run", "notes", "--to", "new", "--yes", home=home)
    (folder,) = home.rglob("*.emberd")
    database = stores.connect(folder.with_suffix(""))
    database.execute("CREATE TABLE mine(a); BEGIN IMMEDIATE")  # it says so, and waits
    process = subprocess.Popen(
        [sys.executable, "-m", "emberd", "migrate", "undo", "notes", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environ(home),
    )
    assert process.stdout
    assert process.stdout.readline().startswith(b"The store was written to")
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    database.close()

    done = run_emberd("migrate", "undo", "notes", "--yes", "--json", home=home)

    assert process.returncode == 130
    assert complaint.decode().endswith("from here:\n  emberd migrate undo notes --yes\n")
    assert json.loads(done.stdout)["from"] == "new"
