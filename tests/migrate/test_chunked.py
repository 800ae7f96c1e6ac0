"""Stores whose rows are chunks: how they were cut is recorded, shown, and kept by migrations."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.config.load import load_config
from emberd.migrate.chunked import chunking_of
from emberd.migrate.known import find
from emberd.migrate.stamps import note_stamps
from emberd.spaces.chunks import StoreChunking
from emberd.spaces.stores import StoresFile
from emberd.stores.base import Stamp
from tests.in_process import Done, run_here
from tests.migrate import stores
from tests.serving import Server, clean_environ

SIZE, SHORT = 24, 16
CUT: dict[str, Any] = {"size": SIZE, "overlap": 4, "kind": "text", "language": None, "late": False}
HELD = StoreChunking(size=SIZE, overlap=4)


def configure(home: Path, model: str | None = None, **chunk: object) -> None:
    """Write the settings: `new` takes fewer tokens than the chunks of `old` have."""
    entry = {"path": "notes.db", "model": model, "options": {"text": "notes.body"}}
    base = {"dimensions": 64, "pooling": "mean"}
    models = {
        "old": {**base, "sources": [{"path": str(stores.TINY / "bert")}]},
        "new": {**base, "sources": [{"path": str(stores.TINY / "roberta")}], "max_tokens": SHORT},
    }
    content = {
        "default": "old",
        "models": models,
        "stores": {"notes": {**entry, "chunk": chunk or None}},
    }
    (home / "config.yaml").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, and a sqlite-vec store of chunks that it cut and embedded."""
    home = tmp_path_factory.mktemp("served")
    configure(home)
    with Server(home) as server:
        texts = [" ".join(stores.texts(9)[at : at + 3]) for at in (0, 3, 6)]
        said = server.embed(*texts, chunk={"size": SIZE, "overlap": 4})
        # what an answer states cuts again in the same places, and an entry takes it as it is
        assert said["chunking"] == CUT
        assert server.embed(*texts, chunk=said["chunking"])["chunks"] == said["chunks"]
        rows = [texts[each["text"]][each["start"] : each["end"]] for each in said["chunks"]]
        with closing(stores.connect(home / "notes.db")) as database:
            database.execute("CREATE TABLE notes(body TEXT)")
            database.execute("CREATE VIRTUAL TABLE v USING vec0(embedding float[64])")
            for row, vector in zip(rows, np.array(said["embeddings"], "<f4"), strict=True):
                database.execute("INSERT INTO notes VALUES (?)", (row,))
                database.execute("INSERT INTO v(embedding) VALUES (?)", (vector.tobytes(),))
        yield server


@pytest.fixture
def home(served: Server, tmp_path: Path) -> Path:
    """A home with the store, whose entry says how it was cut; the server's if it is asked for."""
    shutil.copy(served.home / "notes.db", tmp_path)
    configure(tmp_path, **CUT)
    return tmp_path


def run(served: Server, home: Path, *arguments: str) -> Done:
    """Run a command of `migrate` that asks the server for vectors."""
    shutil.copytree(served.home / "state", home / "state", dirs_exist_ok=True, ignore=_stores)
    return run_here(home, "migrate", *arguments)


def _stores(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name == "stores.json"]


def noted(home: Path) -> StoreChunking | None:
    """Return what is recorded about the store."""
    known = StoresFile(home / "state").read().get("notes")
    return known.chunk if known else None


def bodies(home: Path) -> list[tuple[Any, ...]]:
    return stores.ask(home / "notes.db", "SELECT rowid, body FROM notes ORDER BY rowid")


def test_a_check_records_what_the_entry_says_and_warns_once_it_says_something_else(
    served: Server, home: Path
) -> None:
    first = run(served, home, "check", "notes", "--model", "old")
    assert first.code == 0, first.err
    assert "The rows are chunks: text, 24 tokens, overlap 4." in first.out
    assert "Warning" not in first.out
    assert noted(home) == HELD

    configure(home, size=12)
    other = run(served, home, "check", "notes", "--model", "old")
    assert "The rows are chunks: text, 24 tokens, overlap 4." in other.out
    assert "`stores.notes.chunk` says that new rows are cut in another way" in other.out
    assert "text, 12 tokens, overlap 0" in other.out
    assert noted(home) == HELD
    asked = json.loads(run(served, home, "check", "notes", "--model", "old", "--json").out)
    assert (asked["chunk"], asked["chunk_of_new"]["size"]) == (CUT, 12)

    recut = run(served, home, "check", "notes", "--model", "old", "--recut")
    assert "Warning" not in recut.out
    assert noted(home) == StoreChunking(size=12)
    assert "12 tokens" in run(served, home, "status", "notes").out


def test_a_server_warns_while_the_entry_says_something_else(home: Path) -> None:
    with Server(home) as server:

        def warnings() -> list[dict[str, str]]:
            found: list[dict[str, str]] = server.http.get("/health").json()["warnings"]
            return found

        assert run_here(home, "migrate", "check", "notes").code == 0
        assert warnings() == []

        configure(home, **{**CUT, "size": 12})
        server.http.post("/reload").raise_for_status()
        (warning,) = warnings()
        assert warning["code"] == "store_chunk_mismatch"
        (row,) = server.http.get("/stores").json()["stores"]
        assert row["warnings"] == [warning]
        assert warning["message"] == (
            "The rows of the store notes are chunks (text, 24 tokens, overlap 4), and its entry"
            " says that new ones are cut in another way (text, 12 tokens, overlap 4)."
        )
        assert "`emberd migrate check notes --recut`" in warning["hint"]
        assert warning["message"] in run_here(home, "ps").err

        assert run_here(home, "migrate", "check", "notes", "--recut").code == 0
        assert warnings() == []

        configure(home)  # which says nothing about chunks
        server.http.post("/reload").raise_for_status()
        assert warnings() == []


def test_a_model_that_takes_less_than_a_chunk_has_is_warned_of(served: Server, home: Path) -> None:
    rows = len(bodies(home))
    planned = run(served, home, "run", "notes", "--to", "new", "--dry-run", "--json")
    plan = json.loads(planned.out)
    told = run(served, home, "run", "notes", "--to", "new", "--dry-run").out

    assert (plan["chunk"], plan["max_tokens"]) == (CUT, SHORT)
    assert plan["sampled"] == rows
    assert 0 < plan["truncated"] <= rows
    assert (
        f"Warning: new takes {SHORT} tokens, special ones included, and chunks have up to {SIZE}:"
        f" it cuts {plan['truncated']} of {rows} sampled rows."
    ) in told

    configure(home)  # without a word about chunks the sample shows it all the same
    cut = run(served, home, "run", "notes", "--to", "new", "--dry-run").out
    assert f"it cuts {plan['truncated']} of {rows} sampled rows" in cut
    assert "chunks have" not in cut
    back = run(served, home, "run", "notes", "--to", "old", "--force", "--dry-run").out
    assert "Warning" not in back


def test_the_default_of_a_check_is_warned_of_too(served: Server, home: Path) -> None:
    configure(home, model="new", **CUT)

    said = run(served, home, "check", "notes")
    report = json.loads(run(served, home, "check", "notes", "--json").out)

    assert said.code == 3
    assert f"it cuts {report['truncated']} of {report['sampled']} sampled rows" in said.out
    assert report["truncated"] > 0
    assert report["max_tokens"] == SHORT


def test_rows_stay_as_they_are_and_the_stamp_says_how_they_were_cut(
    served: Server, home: Path
) -> None:
    before = bodies(home)
    moved = run(served, home, "run", "notes", "--to", "new", "--yes")
    assert moved.code == 0, moved.err

    assert bodies(home) == before
    keys, vectors = stores.read(home / "notes.db", "v")
    again = served.embed(*(body for _, body in before), model="new")["embeddings"]
    assert keys == [key for key, _ in before]
    assert np.allclose(vectors, again, atol=1e-5)
    assert noted(home) == HELD

    # another machine knows it from the store itself, and warns of an entry that differs
    (home / "state" / "stores.json").unlink()
    configure(home, size=12)
    config = load_config(environ=clean_environ(home))
    assert note_stamps(config) == {}
    assert noted(home) == HELD
    (home / "state" / "stores.json").unlink()
    by_stamp = run(served, home, "check", "notes")
    assert "The rows are chunks: text, 24 tokens, overlap 4." in by_stamp.out
    assert "cut in another way: text, 12 tokens" in by_stamp.out
    assert f"Warning: new takes {SHORT}" not in by_stamp.out  # the default is still old

    configure(home, model="new", **CUT)  # nothing is embedded, but the sizes are known
    told = run(served, home, "check", "notes").out
    assert f"new takes {SHORT} tokens, special ones included, and chunks have up to {SIZE}." in told
    assert "sampled" not in told


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_store_that_was_chunked_late_is_refused(
    served: Server, home: Path, *, forgotten: bool
) -> None:
    configure(home, **{**CUT, "late": True})
    raw = (home / "notes.db").read_bytes()
    checked = run(served, home, "check", "notes", "--model", "old")
    assert "overlap 4, late" in checked.out
    assert "cannot be compared" in checked.out
    if forgotten:
        configure(home)  # it was recorded

    refused = run(served, home, "run", "notes", "--to", "new", "--yes")

    assert refused.code == 1
    assert "The rows of notes were chunked late" in refused.err
    assert "into a new store" in refused.err
    assert (home / "notes.db").read_bytes() == raw


def test_no_model_is_recommended_for_vectors_that_were_chunked_late(
    served: Server, home: Path
) -> None:
    configure(home, **{**CUT, "late": True})
    noise = np.random.default_rng(1).standard_normal(64).astype("<f4").tobytes()
    with closing(stores.connect(home / "notes.db")) as database:
        database.execute("UPDATE v SET embedding = ?", (noise,))

    checked = run(served, home, "check", "notes", "--model", "old")

    assert checked.code == 5
    assert "made these vectors, as far as the rows alone show." in checked.out
    assert "emberd pull" not in checked.out


def test_what_was_noted_counts_until_another_machine_stamps_the_store(home: Path) -> None:
    ref = find(load_config(environ=clean_environ(home)), "notes")
    mine, theirs = StoreChunking(size=7), StoreChunking(size=9)

    def stamped(migration: str, chunk: StoreChunking | None) -> Stamp:
        return Stamp(
            model="old", fingerprint="f", dimensions=64, probes="", migration=migration,
            made_at="now", chunk=chunk,
        )  # fmt: skip

    note = ref.holding("old", "f", migration="1", chunk=mine)
    other = ref.holding("old", "f", migration="1")

    assert chunking_of(ref, None, None) == HELD  # the entry's
    assert chunking_of(ref, note, stamped("1", theirs)) == mine
    assert chunking_of(ref, note, stamped("2", theirs)) == theirs
    assert chunking_of(ref, note, stamped("2", None)) == mine  # by an older emberd
    assert chunking_of(ref, other, stamped("1", theirs)) == HELD
    assert chunking_of(ref, None, stamped("2", theirs)) == theirs
