"""`emberd embed`: what goes in, what is cut, and the progress that a person sees."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Server, run_emberd
from tests.terminal import run_on_a_terminal

LONG = "word " * 600


def rows(done: "subprocess.CompletedProcess[bytes]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(params=["a server", "no server"])
def place(request: pytest.FixtureRequest, server: Server, home: Path) -> Path:
    """A home where a server runs, and one where none does."""
    return server.home if request.param == "a server" else home


@pytest.mark.slow
def test_what_was_cut_is_said_by_its_place(place: Path) -> None:
    texts = ["short", LONG, LONG, "short", LONG]

    done = run_emberd("embed", *texts, home=place)

    assert [row["truncated"] for row in rows(done)] == [False, True, True, False, True]
    (warning,) = done.stderr.decode().splitlines()
    assert warning.startswith("warning: Texts 1-2, 4 were cut after 512 tokens")


def test_places_are_counted_over_all_batches(small: Server) -> None:
    lines = ["short"] * 258
    lines[257] = LONG

    done = small.run("embed", "--json", stdin="\n".join(lines).encode())

    assert [row["index"] for row in rows(done) if row["truncated"]] == [257]
    assert json.loads(done.stderr)["warning"].startswith("Text 257 was cut after 48 tokens")


@pytest.mark.slow
def test_nothing_is_said_where_nothing_was_cut(place: Path) -> None:
    assert run_emberd("embed", "short", home=place).stderr == b""


@pytest.mark.slow
def test_json_lines_hold_texts_of_several_lines(place: Path) -> None:
    stdin = b'"one\\ntwo"\n{"text": "three", "id": 7}\r\n"\\u00e9"'

    done = run_emberd("embed", "--jsonl", home=place, stdin=stdin)

    given = run_emberd("embed", "one\ntwo", "three", "é", home=place)
    assert [row["embedding"] for row in rows(done)] == [row["embedding"] for row in rows(given)]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"plain text", "Line 2 of stdin is not JSON: Expecting value"),
        (b"", "Line 2 of stdin is not JSON"),
        (b"7", "Line 2 of stdin "),
        (b"null", "Line 2 of stdin "),
        (b'["a"]', "Line 2 of stdin "),
        (b'{"texts": "a"}', "Line 2 of stdin "),
        (b'{"text": null}', "Line 2 of stdin "),
        (b'"half \\ud800"', "Line 2 of stdin "),
        (b"[" * 100_000, "Line 2 of stdin is not JSON"),
        (b'"\xff"', "stdin is not UTF-8."),
    ],
)
def test_a_line_that_is_no_text_is_named(small: Server, line: bytes, complaint: str) -> None:
    done = small.run("embed", "--jsonl", stdin=b'"a"\n' + line + b'\n"b"\n')

    assert (done.returncode, done.stdout) == (1, b"")
    assert complaint in done.stderr.decode()
    assert b"hint: " in done.stderr
    assert b"Traceback" not in done.stderr


def test_json_lines_come_from_stdin_only(home: Path) -> None:
    done = run_emberd("embed", "--jsonl", "text", home=home)

    assert done.stderr.startswith(b"error: --jsonl ")


def test_a_terminal_shows_how_many_are_done(small: Server, tmp_path: Path) -> None:
    done = run_on_a_terminal(small.home, "embed", *["text"] * 300, stdout=tmp_path / "vectors")

    assert done.returncode == 0
    vectors = (tmp_path / "vectors").read_bytes()
    assert len(vectors.splitlines()) == 300
    assert b"256/300" in done.stdout or b"300/300" in done.stdout
    assert b"embedding" not in done.stdout


def test_vectors_on_a_terminal_are_not_drawn_over(small: Server) -> None:
    done = run_on_a_terminal(small.home, "embed", "text")

    assert done.returncode == 0
    assert json.loads(done.stdout)["index"] == 0
