"""`emberd map` and `emberd open`, as somebody meets them who types them for the first time."""

from pathlib import Path

import pytest

from tests.serving import clean_environ, run_emberd


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["opne"], "No such command 'opne'. Did you mean 'open'?", "See `emberd --help`."),
        (["mapp"], "No such command 'mapp'. Did you mean 'map'?", "See `emberd --help`."),
        (["open"], "No emberd server is running.", "Start one with `emberd serve`."),
        (["map"], "Missing argument 'STORE'.", "See `emberd map --help`."),
        (["map", "notes"], "Missing option '--out'.", "See `emberd map --help`."),
        (["map", "notse", "--out", "a.parquet"], "There is no store notse:", "Did you mean notes?"),
        (["map", "notes", "--out", "no/a.parquet"], "there is no folder", "Make the folder"),
        (["pull", "minilm", "--progress"], "--progress is for programs", "`emberd pull --help`"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_answered_with_what_to_type(
    home: Path, words: list[str], error: str, hint: str
) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("stores: {notes: {path: notes.db}}\n")

    done = run_emberd(*words, home=home, environ=clean_environ(home))

    said, advice = done.stderr.decode().splitlines()
    assert done.returncode in (1, 2)
    assert (said.startswith("error: "), advice.startswith("hint: ")) == (True, True)
    assert error in said
    assert hint in advice
    assert done.stdout == b""


def test_help_says_how_to_see_a_map_without_a_file(home: Path) -> None:
    told = " ".join(run_emberd("map", "--help", home=home).stdout.decode().split())

    assert "run `emberd open`, and choose Map" in told
    assert "Starts no server: `emberd serve` does." in " ".join(
        run_emberd("open", "--help", home=home).stdout.decode().split()
    )
