"""The command line when something around it is missing: a home, disk space, a reader."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.forked import start
from tests.hub import Hub
from tests.serving import clean_environ, run_emberd

COMMANDS: list[list[str]] = [
    ["list"], ["pull", "tiny"], ["remove", "tiny"], ["ps"], ["embed", "a"],
    ["load"], ["unload"], ["verify", "tiny"], ["doctor"], ["use", "tiny"], ["reload"],
    ["config", "show"], ["config", "path"], ["config", "check"], ["config", "diff"],
    ["config", "init"], ["service", "status"], ["service", "logs"], ["service", "restart"],
    ["service", "install", "--dry-run"], ["service", "uninstall"], ["migrate", "check", "s"],
    ["migrate", "run", "s"], ["migrate", "undo", "s"], ["migrate", "status", "s"], ["bench"],
    ["serve", "--port", "0"],
]  # fmt: skip
NOBODY = ["unshare", "--user", "--map-user=12345", "env", "-i"]


@pytest.fixture(scope="module")
def nobody() -> Sequence[str]:
    """Runs a command as a user that the system does not know, with an empty environment."""
    try:
        works = subprocess.run([*NOBODY, "/bin/true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        works = False
    if not works:
        pytest.skip("this system lets nobody be another user (no user namespaces)")
    return NOBODY


def run(
    *arguments: str,
    within: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "subprocess.CompletedProcess[bytes]":
    settings = [f"{name}={value}" for name, value in (environ or {}).items()]
    return subprocess.run(
        [*within, *settings, sys.executable, "-m", "emberd", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=cwd,
        timeout=60,
    )


def shell(home: Path, words: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell command in which `emberd` is this emberd."""
    emberd = f'emberd() {{ {sys.executable} -m emberd "$@"; }}'
    environ = clean_environ(home)
    return subprocess.run(
        ["/bin/bash", "-c", f"{emberd}; {words}"], capture_output=True, env=environ, text=True
    )


@pytest.mark.parametrize(
    "command",
    [
        COMMANDS[0],
        *(pytest.param(command, marks=pytest.mark.slow) for command in COMMANDS[1:]),
    ],
    ids=" ".join,
)
def test_without_a_home_every_command_says_so_in_two_lines(
    nobody: Sequence[str], command: list[str], tmp_path: Path
) -> None:
    done = run(*command, within=nobody, cwd=tmp_path)

    assert done.returncode in (1, 78)
    assert done.stdout == b""
    error, hint = done.stderr.decode().splitlines()
    assert "HOME" in error
    assert "user 12345" in error
    assert hint.startswith("hint: Set EMBERD_HOME ")
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_no_shell_can_learn_to_complete(nobody: Sequence[str]) -> None:
    done = run("--install-completion", "bash", within=nobody)

    assert done.returncode == 1
    error, hint = done.stderr.decode().splitlines()
    assert "HOME" in error
    assert hint.startswith("hint: Set HOME ")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one small model."""
    tiny_bert(tmp_path / "repository")
    files = {path.name: path.read_bytes() for path in (tmp_path / "repository").iterdir()}
    with Hub({"me/tiny": files}) as running:
        yield running


@pytest.mark.slow
def test_with_a_home_of_emberds_own_everything_works_for_nobody(
    nobody: Sequence[str], hub: Hub, home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    tiny = "tiny: {sources: [{hf: me/tiny}], dimensions: 64, pooling: mean}"
    (home / "config.yaml").write_text(f"default: tiny\nmodels: {{{tiny}}}\n")
    (here := tmp_path / "here").mkdir()
    environ = {"EMBERD_HOME": str(home), "HF_ENDPOINT": hub.url}

    done = {
        command[0]: run(*command, within=nobody, environ=environ, cwd=here)
        for command in (["pull", "tiny"], ["embed", "a"], ["list"], ["doctor"], ["remove", "tiny"])
    }

    assert {name: one.returncode for name, one in done.items()} == dict.fromkeys(done, 0), done
    assert json.loads(done["embed"].stdout)["dimensions"] == 64
    assert list(here.iterdir()) == []  # no folder called `~`


def test_a_service_of_nobody_says_what_it_lacks(
    nobody: Sequence[str], home: Path, tmp_path: Path
) -> None:
    done = run("service", "install", "--dry-run", within=nobody, environ={"EMBERD_HOME": str(home)})

    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith("hint: Set HOME ")


@pytest.mark.parametrize(
    "command",
    ["list", "list --json", pytest.param("embed a b", marks=pytest.mark.slow), "config show --all",
     pytest.param("doctor", marks=pytest.mark.slow), "--help", "--version",
     "ps", "migrate --help", "config path", ""],
)  # fmt: skip
def test_a_full_disk_is_one_error(home: Path, command: str) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        Path(os.devnull).open("rb") as nothing,
        tempfile.TemporaryFile() as err,
    ):
        process = start(
            command.split(), environ=clean_environ(home), stdin=nothing, stdout=full, stderr=err
        )
        assert process.wait(60) == 1
        err.seek(0)
        said = err.read().decode().splitlines()

    if "--json" in command:
        assert json.loads(said[0])["code"] == "output"
    else:
        assert said[0] == "error: The output cannot be written: No space left on device."
    assert len(said) <= 2


def test_a_full_disk_under_a_shell_is_one_error_too(home: Path) -> None:
    done = shell(home, "emberd config path > /dev/full")

    assert done.returncode == 1
    assert done.stderr.startswith("error: The output cannot be written: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["list --json", "embed a b c d", "config show --all", "--help", "doctor"]
)
def test_who_reads_no_more_is_told_nothing(home: Path, command: str) -> None:
    done = shell(home, f"emberd {command} | head -c 1")

    assert (len(done.stdout), done.stderr) == (1, "")


@pytest.mark.slow
def test_a_closed_stdout_does_not_become_a_file(home: Path, tmp_path: Path) -> None:
    """Without one, the next file opened has descriptor 1, and what is printed lands in it."""
    done = shell(home, "emberd embed a >&- && emberd list >&- && emberd doctor 2>&-")

    assert done.returncode == 0
    assert json.loads((home / "state" / "lock.json").read_text())["models"]["minilm"]


def test_a_closed_stdin_is_an_empty_one(home: Path) -> None:
    done = shell(home, "emberd embed <&-")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_package_runs_as_the_command_does(home: Path) -> None:
    script = Path(sys.executable).with_name("emberd")
    environ = clean_environ(home) | {"COLUMNS": "80"}

    ours, theirs = (
        subprocess.run([*way, "--help"], capture_output=True, env=environ)
        for way in ([sys.executable, "-m", "emberd"], [script])
    )

    assert (ours.stdout, ours.returncode) == (theirs.stdout, 0)
    assert ours.stdout.startswith(b"Usage: emberd ")


@pytest.mark.parametrize(
    ("command", "exit_code", "code"),
    [
        (["list", "--bogus"], 2, "usage"),
        (["lst"], 2, "usage"),
        (["use"], 2, "usage"),
        (["verify", "nope"], 1, "unknown_model"),
        (["load"], 1, "no_server"),
        (["reload"], 1, "no_server"),
        (["config", "diff"], 1, "no_server"),
        (["migrate", "check", "/nowhere"], 1, "not_a_store"),
        (["bench", "--model", "nope"], 1, "unknown_model"),
        (["remove", "nope"], 1, "unknown_model"),
        (["embed", "--input-type", "odd", "a"], 1, "bad_option"),
    ],
)
def test_errors_are_json_where_the_answer_would_be(
    home: Path, command: list[str], exit_code: int, code: str
) -> None:
    done = run_emberd(*command, "--json", home=home)

    (line,) = done.stderr.splitlines()
    said = json.loads(line)
    assert (done.returncode, done.stdout, said["code"]) == (exit_code, b"", code)
    assert sorted(said) == ["code", "detail", "hint"]


def test_warnings_are_json_too(home: Path) -> None:
    environ = clean_environ(home) | {"EMBERD_LIMITS_MAX_LODED": "2"}

    done = run_emberd("list", "--json", home=home, environ=environ)

    assert "EMBERD_LIMITS_MAX_LODED" in json.loads(done.stderr)["warning"]


def test_text_that_says_json_is_text(home: Path) -> None:
    done = run_emberd("embed", "--model", "nope", "--", "--json", home=home)

    assert done.stderr.startswith(b"error: ")


@pytest.mark.parametrize(
    "command",
    [
        "list --config mine.yaml",
        pytest.param("migrate check notes.db", marks=pytest.mark.slow),
        pytest.param("EMBERD_HOME=here list", marks=pytest.mark.slow),
    ],
)
def test_a_folder_that_was_deleted_under_the_shell_is_said_to_be(
    home: Path, tmp_path: Path, command: str
) -> None:
    rest = command.removeprefix("EMBERD_HOME=here ")
    setting = "" if rest == command else "export EMBERD_HOME=here; "
    gone = tmp_path / "gone"

    done = shell(home, f"mkdir {gone}; cd {gone}; rmdir {gone}; {setting}emberd {rest}")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: The current folder was deleted")


@pytest.mark.slow
def test_whole_paths_need_no_folder_to_be_in(home: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"

    done = shell(home, f"mkdir {gone}; cd {gone}; rmdir {gone}; emberd embed a")

    assert (done.returncode, done.stderr) == (0, "")
