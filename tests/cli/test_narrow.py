"""Tables on narrow terminals: names stay, other columns are dropped first, and nothing is cut."""

import json
import re
from pathlib import Path

import pytest

from emberd.cli.render import Sheet
from tests.serving import Server, run_emberd
from tests.terminal import run_on_a_terminal

LONG = "a-model-of-our-own-with-a-long-name.v2"
CONFIG = (
    f"models: {{{LONG}: {{sources: [{{path: /nowhere/at/all}}], dimensions: 8, pooling: cls}}}}\n"
)


def lines_on_a_terminal(home: Path, *arguments: str, width: int) -> list[str]:
    """Run on a terminal of that width; return the lines without their colours."""
    shown = run_on_a_terminal(home, *arguments, width=width).stdout.decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).splitlines()


@pytest.mark.parametrize("width", [30, 60, 80, 120, 200])
def test_list_shows_every_name_whole(home: Path, width: int) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(CONFIG)
    listed = json.loads(run_emberd("list", "--json", home=home).stdout)["models"]

    lines = lines_on_a_terminal(home, "list", width=width)

    names = [line.split()[0] for line in lines[1:] if not line.startswith("A wider")]
    assert names == [row["name"] for row in listed]
    assert not any("…" in line for line in lines)
    assert all(re.search(r" (not )?here\b", line) for line in lines[1 : len(listed) + 1])
    if 60 <= width < 120:
        assert max(len(line.rstrip()) for line in lines[:-1]) <= width
        assert "licence" in lines[-1]
    if width == 200:
        assert len(lines) == len(listed) + 1


@pytest.mark.slow
def test_ps_shows_every_name_whole_and_why_a_model_failed(home: Path) -> None:
    with Server(home, config=CONFIG) as own:
        own.run("load", LONG)
        own.run("load", "minilm")

        lines = lines_on_a_terminal(home, "ps", width=80)
        narrow = lines_on_a_terminal(home, "ps", width=60)

    for seen in (lines, narrow):
        assert any(line.startswith(f"{LONG}  failed") for line in seen)
        assert any(line.startswith("minilm ") for line in seen)
        assert "not on this machine" in " ".join(" ".join(seen).split())


@pytest.mark.slow
def test_doctor_leaves_no_word_out(home: Path) -> None:
    checks = json.loads(run_emberd("doctor", "--json", home=home).stdout)["checks"]
    same = [row for row in checks if row["check"] in ("config", "python", "folder, models", "port")]

    seen = "".join(lines_on_a_terminal(home, "doctor", width=60)).replace(" ", "")

    assert len(same) == 4
    for row in same:
        assert row["detail"].replace(" ", "") in seen


def test_a_pipe_gets_every_row_in_a_line(home: Path) -> None:
    home.mkdir()
    name = LONG * 5
    (home / "config.yaml").write_text(CONFIG.replace(LONG, name))

    lines = run_emberd("list", home=home).stdout.decode().splitlines()

    (row,) = [line for line in lines if line.startswith(name)]
    assert row.split()[1:4] == ["8", "cls", "f32"]


def test_columns_leave_in_their_order_until_the_rest_fits() -> None:
    sheet = Sheet(("name", "why", "a", "b"), sentences=("why",), leave=("b", "a"))
    sheet.rows.append(("x" * 10, "word " * 20, "1" * 10, "2" * 10))

    kept = {width: sheet.fitted(width)[0] for width in (200, 58, 50, 40, 20)}

    assert kept[200] == ["name", "why", "a", "b"]
    assert kept[58] == ["name", "why", "a", "b"]
    assert kept[50] == ["name", "why", "a"]
    assert kept[40] == kept[20] == ["name", "why"]
    assert sheet.fitted(20)[1] == 32  # and the terminal breaks the line
