"""`emberd chunk` and `emberd embed --chunk`, with a server and without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.spaces.fingerprint import of_late
from emberd.vectors import Matrix, lowest_cosine
from tests.serving import Server, run_emberd

TEXT = "The kettle is on 😀. Tea will be ready soon.\r\nNobody answered for a long while.\n" * 6


def rows(stdout: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def vectors(rows: list[dict[str, Any]]) -> Matrix:
    return np.array([row["embedding"] for row in rows], np.float32)


@pytest.fixture(params=["a server", "no server"])
def place(request: pytest.FixtureRequest, small: Server, home: Path) -> Path:
    """A home where a server runs, and one where none does."""
    if request.param == "no server":
        home.mkdir(exist_ok=True)
        tiny_bert(home / "model")
        entry = f"{{sources: [{{path: {home / 'model'}}}], dimensions: 64, pooling: mean}}"
        (home / "config.yaml").write_text(f"default: tiny\nmodels: {{tiny: {entry}}}\n")
    return small.home if request.param == "a server" else home


def test_files_are_cut(place: Path, tmp_path: Path) -> None:
    text, notes = tmp_path / "a.txt", tmp_path / "b.md"
    text.write_bytes(TEXT.encode())
    notes.write_text("".join(f"# Part {number}\n\nSome of it.\n\n" for number in range(3)))
    done = run_emberd("chunk", "--size", "16", "--overlap", "4", str(text), str(notes), home=place)

    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert {row["file"] for row in found} == {str(text), str(notes)}
    of_text = [row for row in found if row["file"] == str(text)]
    assert len(of_text) > 3
    assert all(row["text"] == TEXT[row["start"] : row["end"]] for row in of_text)
    headings = [row["text"] for row in found if row["file"] == str(notes)]
    assert headings
    assert all(each.startswith("# Part") for each in headings)


def test_stdin_is_one_text(place: Path) -> None:
    done = run_emberd("chunk", "--size", "16", home=place, stdin=TEXT.encode())

    assert {row["file"] for row in rows(done.stdout)} == {"-"}


def test_vectors_of_chunks(place: Path) -> None:
    done = run_emberd("embed", "--chunk", "16", "--overlap", "4", TEXT, " ", "Short.", home=place)

    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert {row["index"] for row in found} == {0, 2}
    assert all(len(row["embedding"]) == 64 for row in found)
    last = found[-1]
    assert (last["start"], last["end"], last["model"]) == (0, 6, "tiny")


def test_late_chunking(place: Path) -> None:
    def embed(*options: str) -> list[dict[str, Any]]:
        done = run_emberd("embed", "--chunk", "8", *options, TEXT[:79], " ", "Short.", home=place)
        assert done.returncode == 0, done.stderr
        return rows(done.stdout)

    plain, late = embed(), embed("--late")

    places = [{**row, "embedding": 0, "fingerprint": 0} for row in plain]
    assert [{**row, "embedding": 0, "fingerprint": 0} for row in late] == places
    assert {row["index"] for row in late} == {0, 2}
    assert {row["fingerprint"] for row in late} == {of_late(plain[0]["fingerprint"])}
    assert lowest_cosine(vectors(late), vectors(plain)) < 0.999


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chunk", "/nowhere/x.txt"], "/nowhere/x.txt"),
        (["chunk", "--kind", "novel"], "novel"),
        (["chunk", "--kind", "code"], "--language"),
        (["chunk", "--language", "cobol"], "cobol"),
        (["chunk", "--language", "go", "--kind", "text"], "of code"),
        (["embed", "--overlap", "3", "x"], "--chunk"),
        (["embed", "--late", "x"], "--late is of chunks"),
        (["embed", "--late", "--chunk", "8", "word " * 5000], "late chunking reads texts whole"),
        (["embed", "--chunk", "99999", "x"], "99999"),
    ],
)
def test_what_cannot_be_is_said(small: Server, arguments: list[str], words: str) -> None:
    done = run_emberd(*arguments, home=small.home, stdin=b"text")

    assert done.returncode == 1
    assert words in done.stderr.decode()


def test_a_file_that_is_not_utf8(small: Server, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe")
    done = run_emberd("chunk", str(tmp_path / "x.txt"), home=small.home)

    assert done.returncode == 1
    assert b"not UTF-8" in done.stderr
