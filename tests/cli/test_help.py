"""What a newcomer reads: every command's help on 80 columns, and what the shell completes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emberd.cli.examples import EXAMPLES
from emberd.cli.main import app
from tests.serving import clean_environ, run_emberd

GROUPS = ("service", "config", "migrate", "cache", "ray")
ALONE = ("cache",)  # groups that are commands, too


def help_of(*command: str) -> str:
    done = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    return done.output


def listed(*group: str) -> list[str]:
    """Return the commands that a help names."""
    return re.findall(r"^  ([\w-]+)  ", help_of(*group).partition("Commands:")[2], re.MULTILINE)


def every_command() -> list[str]:
    alone = [name for name in listed() if name not in GROUPS or name in ALONE]
    return alone + [f"{group} {name}" for group in GROUPS for name in listed(group)]


def test_there_is_an_example_for_every_command_and_for_no_other() -> None:
    assert sorted(every_command()) == sorted(EXAMPLES)


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_help_fits_and_has_an_example_that_can_be_typed(command: str) -> None:
    shown = help_of(*command.split())

    assert max(map(len, shown.splitlines())) <= 80
    assert "<bool>" not in shown
    assert re.search(r"^  Examples?:$", shown, re.MULTILINE)
    for typed, _ in EXAMPLES[command]:
        assert f"    {typed}\n" in shown
        words = shlex.split(typed)
        assert words[: 1 + len(command.split())] == ["emberd", *command.split()]
        for option in (word for word in words if word.startswith("-")):
            assert re.search(rf"(?<!\S){option}\b", shown)


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_a_list_of_commands_cuts_no_sentence(group: str) -> None:
    shown = help_of(*group.split())

    assert "..." not in shown.partition("Commands:")[2]
    assert max(map(len, shown.splitlines())) <= 80
    assert "<bool>" not in shown


def complete(home: Path, **variables: str) -> str:
    """Ask for completions as the script in the user's shell does."""
    done = run_emberd(home=home, environ=clean_environ(home) | variables)
    assert done.stderr == b""
    return done.stdout.decode()


@pytest.mark.parametrize(
    "line",
    ["pull mpn", "use mpn", "remove mpn", "load mpn", "unload mpn", "verify mpn",
     "embed --model mpn", "verify --accept mpn", "bench --model mpn", "serve --default mpn",
     "migrate run x --to mpn",
     "migrate check x --model mpn", "pull minilm mpn"],
)  # fmt: skip
def test_bash_completes_the_names_of_models(home: Path, line: str) -> None:
    words = f"emberd {line}"

    shown = complete(
        home,
        _EMBERD_COMPLETE="complete_bash",
        COMP_WORDS=words,
        COMP_CWORD=str(len(words.split()) - 1),
    )

    assert shown.split() == ["mpnet", "mpnet-f32"]


@pytest.mark.parametrize(
    ("option", "values"),
    [("--pooling", "mean cls last"), ("--precision", "4bit 8bit bf16 f32")],
)
def test_bash_completes_what_a_model_is_added_with(home: Path, option: str, values: str) -> None:
    words = f"emberd add me/mine {option} "

    shown = complete(home, _EMBERD_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="4")

    assert shown.split() == values.split()


def test_zsh_and_fish_do_too(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(
        "models: {mpn-of-mine: {sources: [{path: /x}], dimensions: 8, pooling: cls}}\n"
    )

    zsh = complete(home, _EMBERD_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="emberd pull mpn")
    fish = complete(
        home,
        _EMBERD_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS="emberd pull mpn",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )

    for shown in (zsh, fish):
        for name in ("mpnet", "mpnet-f32", "mpn-of-mine"):
            assert re.search(rf"\b{name}\b", shown)
        assert "768 dimensions" in shown


def test_stores_are_completed_by_their_names(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("stores: {notes: {path: /x}, other: {path: /y}}\n")
    words = "emberd migrate check no"

    shown = complete(home, _EMBERD_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")

    assert shown.split() == ["notes"]


def test_a_broken_config_file_completes_nothing_and_says_nothing(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("nonsense: [\n")
    words = "emberd pull mpn"

    shown = complete(home, _EMBERD_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="2")

    assert shown.strip() == ""


def test_the_script_works_in_bash_itself(home: Path) -> None:
    emberd = Path(sys.executable).with_name("emberd")
    script = f"""
    PATH={shlex.quote(str(emberd.parent))}:$PATH
    eval "$(_EMBERD_COMPLETE=source_bash emberd)"
    COMP_WORDS=(emberd pull bge-sm); COMP_CWORD=2
    _emberd_completion emberd
    echo "${{COMPREPLY[@]}}"
    """

    done = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, env=clean_environ(home), text=True
    )

    assert (done.stdout, done.stderr) == ("bge-small bge-small-f32\n", "")
