"""Files that cannot be looked at, or are no files: monitoring goes on, requests are answered."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from emberd import running
from tests.faults.tiny import CONFIG, TINY
from tests.powers import powerless
from tests.serving import Server, run_emberd, wait_for

MONITORING = (
    "/health",
    "/ready",
    "/models",
    "/metrics",
    "/api/tags",
    "/api/ps",
    "/v1/models",
    "/info",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model of one's own, in a folder that a test may close."""
    return Path(shutil.copytree(TINY, tmp_path / "closed" / "tiny"))


def ask(own: Server) -> httpx2.Response:
    return own.http.post("/embed", json={"texts": ["a"], "model": "tiny"})


@contextmanager
def parent_closed(folder: Path, home: Path) -> Iterator[None]:
    folder.parent.chmod(0)
    yield
    folder.parent.chmod(0o700)


@contextmanager
def folder_closed(folder: Path, home: Path) -> Iterator[None]:
    folder.chmod(0)
    yield
    folder.chmod(0o700)


@contextmanager
def parent_is_a_file(folder: Path, home: Path) -> Iterator[None]:
    folder.parent.rename(home / "aside")
    folder.parent.touch()
    yield
    folder.parent.unlink()
    (home / "aside").rename(folder.parent)


@contextmanager
def link_in_circles(folder: Path, home: Path) -> Iterator[None]:
    folder.rename(home / "aside")
    folder.symlink_to(folder)
    yield
    folder.unlink()
    (home / "aside").rename(folder)


@contextmanager
def config_is_a_pipe(folder: Path, home: Path) -> Iterator[None]:
    (folder / "config.json").rename(home / "aside")
    os.mkfifo(folder / "config.json")
    yield
    (home / "aside").replace(folder / "config.json")


@contextmanager
def pooling_is_a_pipe(folder: Path, home: Path) -> Iterator[None]:
    pooling = folder / "1_Pooling" / "config.json"
    pooling.rename(home / "aside")
    os.mkfifo(pooling)
    yield
    (home / "aside").replace(pooling)


@contextmanager
def weights_are_a_pipe(folder: Path, home: Path) -> Iterator[None]:
    (folder / "model.safetensors").rename(home / "aside")
    os.mkfifo(folder / "model.safetensors")
    yield
    (home / "aside").replace(folder / "model.safetensors")


@contextmanager
def noted_with_an_endless_name(folder: Path, home: Path) -> Iterator[None]:
    lock = home / "state" / "lock.json"
    before = lock.read_text()
    content = json.loads(before)
    content["models"]["tiny"]["folder"] = f"/{'x' * 5000}"
    lock.write_text(json.dumps(content))
    yield
    lock.write_text(before)


@contextmanager
def state_is_closed(folder: Path, home: Path) -> Iterator[None]:
    (home / "state").chmod(0)
    yield
    (home / "state").chmod(0o700)


@contextmanager
def state_files_are_pipes(folder: Path, home: Path) -> Iterator[None]:
    for name in ("lock.json", "stores.json"):
        (home / "state" / name).unlink(missing_ok=True)
        os.mkfifo(home / "state" / name)
    yield
    for name in ("lock.json", "stores.json"):
        (home / "state" / name).unlink()


@contextmanager
def state_files_are_folders(folder: Path, home: Path) -> Iterator[None]:
    for name in ("lock.json", "stores.json"):
        (home / "state" / name).unlink(missing_ok=True)
        (home / "state" / name).mkdir()
    yield
    for name in ("lock.json", "stores.json"):
        (home / "state" / name).rmdir()


@contextmanager
def weights_closed(folder: Path, home: Path) -> Iterator[None]:
    weights = folder / "model.safetensors"
    weights.rename(home / "aside")
    shutil.copy(home / "aside", weights)  # another file: its hash is not known
    weights.chmod(0)
    yield
    (home / "aside").replace(weights)


@contextmanager
def pooling_closed(folder: Path, home: Path) -> Iterator[None]:
    (folder / "1_Pooling").chmod(0)
    yield
    (folder / "1_Pooling").chmod(0o700)


OF_THE_MODEL = [
    parent_closed, folder_closed, parent_is_a_file, link_in_circles, config_is_a_pipe,
    pooling_is_a_pipe, weights_are_a_pipe, weights_closed, pooling_closed,
]  # fmt: skip
OF_THE_STATE = [
    noted_with_an_endless_name, state_is_closed, state_files_are_folders, state_files_are_pipes,
]  # fmt: skip


def assert_monitored(own: Server) -> None:
    for path in MONITORING:
        assert own.http.get(path, timeout=10).status_code == 200, path
    assert own.run("ps").returncode == 0


def test_powerless_is_without_powers(tmp_path: Path) -> None:
    (tmp_path / "closed").touch(0)

    script = f"open({str(tmp_path / 'closed')!r})"
    tried = subprocess.run([*powerless(), sys.executable, "-c", script], capture_output=True)

    assert b"PermissionError" in tried.stderr


@pytest.mark.slow
def test_whatever_becomes_of_a_models_files_monitoring_and_the_other_models_go_on(
    home: Path, folder: Path
) -> None:
    with Server(home, config=CONFIG.format(folder=folder), prefix=powerless()) as own:
        before = ask(own).json()["embeddings"]
        for trouble in OF_THE_MODEL:
            own.http.post("/unload")
            with trouble(folder, home):
                assert_monitored(own)
                refused = ask(own)
                assert refused.status_code in (500, 503), trouble
                assert refused.json()["code"] in ("model_unavailable", "model_load_failed"), trouble
                assert refused.json()["hint"], trouble
                assert ".py:" not in refused.json()["detail"], trouble
                if trouble in (parent_closed, weights_closed):
                    for command in ("verify", "pull"):
                        assert b"Traceback" not in own.run(command, "tiny").stderr, trouble
                own.embed("text")  # of another model
            wait_for(lambda: ask(own).status_code == 200)
            assert ask(own).json()["embeddings"] == before
        assert "Traceback" not in own.log()


@pytest.mark.slow
def test_whatever_becomes_of_the_state_folder_monitoring_and_requests_go_on(
    home: Path, folder: Path
) -> None:
    with Server(home, config=CONFIG.format(folder=folder), prefix=powerless()) as own:
        before = ask(own).json()["embeddings"]
        for trouble in OF_THE_STATE:
            own.http.post("/unload")
            with trouble(folder, home):
                if trouble is not state_is_closed:
                    assert_monitored(own)
                for path in MONITORING:
                    assert own.http.get(path, timeout=10).status_code == 200, path
                assert ask(own).json()["embeddings"] == before
                own.http.post("/unload")
        assert "Traceback" not in own.log()


def commands(home: Path) -> dict[str, "subprocess.CompletedProcess[bytes]"]:
    every = {
        "ps": ("ps",), "list": ("list",), "embed": ("embed", "text"), "config": ("config", "show"),
        "use": ("use", "minilm"),
    }  # fmt: skip
    return {
        name: run_emberd(*words, home=home, prefix=powerless()) for name, words in every.items()
    }


@pytest.mark.slow
def test_a_pipe_in_place_of_the_config_file_is_a_clear_error(home: Path) -> None:
    home.mkdir()
    os.mkfifo(home / "config.yaml")

    for name, done in commands(home).items():
        assert done.returncode in (1, 78), name
        assert b"config.yaml" in done.stderr and b"is a pipe, not a file" in done.stderr, name
        assert b"Traceback" not in done.stderr
    served = run_emberd("serve", "--port", "0", home=home)
    assert served.returncode == 78
    assert b"is a pipe, not a file" in served.stderr


def test_a_config_file_in_a_closed_folder_is_a_clear_error(home: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "config.yaml").write_text("")
    closed.chmod(0)

    done = run_emberd(
        "--config", str(closed / "config.yaml"), "config", "show", home=home, prefix=powerless()
    )

    closed.chmod(0o700)
    assert done.returncode == 1
    assert b"cannot be read: Permission denied" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_null_device_is_an_empty_config_file(home: Path) -> None:
    assert run_emberd("--config", "/dev/null", "config", "show", home=home).returncode == 0


@pytest.mark.slow
def test_a_pipe_in_place_of_the_tokens_is_a_clear_error(home: Path) -> None:
    home.mkdir()
    os.mkfifo(home / "tokens", 0o600)
    (home / "config.yaml").write_text(f"server: {{token_file: {home / 'tokens'}}}\n")

    served = run_emberd("serve", "--port", "0", home=home)

    assert served.returncode == 78
    assert b"is a pipe, not a file" in served.stderr


@pytest.mark.slow
def test_a_pipe_in_place_of_the_log_is_a_clear_error(home: Path) -> None:
    home.mkdir()
    os.mkfifo(home / "log")
    (home / "config.yaml").write_text(f"log: {{file: {home / 'log'}}}\n")

    served = run_emberd("serve", "--port", "0", home=home)

    assert served.returncode == 78
    assert b"log.file" in served.stderr


@pytest.mark.slow
def test_pipes_and_folders_that_take_the_place_of_a_running_servers_files_change_nothing(
    home: Path,
) -> None:
    home.mkdir()
    (home / "tokens").touch(0o600)
    (home / "tokens").write_text("secret\n")
    config = f"default: minilm-f32\nserver: {{token_file: {home / 'tokens'}}}\n"
    with Server(home, config=config, prefix=powerless()) as own:
        own.http.headers["Authorization"] = "Bearer secret"

        def warned() -> bool:
            return "config" in [w["code"] for w in own.http.get("/health").json()["warnings"]]

        for make in (os.mkfifo, os.mkdir):
            for name in ("config.yaml", "tokens"):
                (home / name).rename(home / f"kept-{name}")
                make(home / name)
            wait_for(warned)
            assert own.http.post("/reload", timeout=20).status_code == 500
            assert own.http.get("/models").status_code == 200
            assert own.http.get("/health").json()["name"] == "minilm-f32"
            for name in ("config.yaml", "tokens"):
                (home / name).unlink() if make is os.mkfifo else (home / name).rmdir()
                (home / f"kept-{name}").rename(home / name)
            wait_for(lambda: not warned())


@pytest.mark.slow
def test_a_closed_folder_of_the_config_file_does_not_end_the_watching(home: Path) -> None:
    folder = home / "closed"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("default: minilm-f32\n")
    arguments = ("--port", "0", "--config", str(folder / "config.yaml"))

    with Server(home, arguments=arguments, prefix=powerless()) as own:

        def default() -> str:
            return str(own.http.get("/health").json()["name"])

        assert default() == "minilm-f32"
        folder.chmod(0)
        wait_for(lambda: own.http.get("/health").json()["warnings"])
        assert default() == "minilm-f32"
        folder.chmod(0o700)
        (folder / "config.yaml").write_text("default: bge-small\n")
        wait_for(lambda: default() == "bge-small")


NOTE = {
    "pid": 1, "host": "127.0.0.1", "port": 9, "version": "1", "socket": None, "instance": "i",
}  # fmt: skip
ABSURD = [
    {"port": 99999999}, {"port": -1}, {"port": "x"}, {"port": True}, {"port": 0}, {"port": 1.5},
    {"host": "x" * 2**20}, {"host": "a\0b"}, {"host": 7}, {"host": ""}, {"host": "a b"},
    {"host": "::1]/["}, {"host": "\x1b[31m"}, {"pid": 0}, {"pid": 2**80}, {"pid": "x"},
    {"version": 3}, {"instance": None}, {"socket": "x" * 2**20}, {"socket": "\0", "port": None},
    {"socket": None, "port": None},
]  # fmt: skip


@pytest.mark.parametrize("absurd", ABSURD, ids=lambda absurd: json.dumps(absurd)[:30])
def test_an_absurd_note_of_a_server_is_no_server(home: Path, absurd: dict[str, object]) -> None:
    (home / "state").mkdir(parents=True)
    (home / "state" / "server.json").write_text(json.dumps({**NOTE, **absurd}))

    assert running.read(home / "state") is None


@pytest.mark.parametrize(
    "absurd",
    [
        {"port": 99999999},
        pytest.param({"host": "x" * 2**20}, marks=pytest.mark.slow),
        pytest.param({"port": -1}, marks=pytest.mark.slow),
    ],
)
def test_ps_and_embed_do_without_a_server_whose_note_is_absurd(
    home: Path, absurd: dict[str, object]
) -> None:
    (home / "state").mkdir(parents=True)
    (home / "state" / "server.json").write_text(json.dumps({**NOTE, **absurd}))

    assert run_emberd("ps", home=home).stdout.startswith(b"No emberd server is running")
    embedded = run_emberd("embed", "text", home=home)
    assert embedded.returncode == 0, embedded.stderr
    assert json.loads(embedded.stdout)["dimensions"] == 384


@pytest.mark.slow
def test_commands_with_a_note_that_is_absurd_or_a_pipe_say_so_or_do_without(home: Path) -> None:
    (home / "state").mkdir(parents=True)
    note = home / "state" / "server.json"
    note.write_text(json.dumps({**NOTE, "host": "a\0b", "port": "x"}))
    for words in (("load",), ("unload",), ("reload",), ("doctor",), ("bench",)):
        assert b"Traceback" not in run_emberd(*words, home=home).stderr, words
    note.unlink()
    os.mkfifo(note)
    assert run_emberd("ps", home=home).stdout.startswith(b"No emberd server is running")
    with Server(home) as own:  # and a server takes its place
        assert own.run("ps").returncode == 0
