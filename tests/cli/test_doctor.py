"""`emberd doctor` in environments that are really broken."""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from emberd.backends import plugins
from emberd.doctor import backends
from tests.hub import Hub
from tests.ports import free_port
from tests.service.managers import Fake
from tests.serving import Server, clean_environ, run_emberd
from tests.unhurried import PROBE_S

CHECKS = (
    "config", "python", "platform", "folder, state", "disk, models", "lock", "service", "memory",
    "backend mlx", "backend onnx", "backend openvino", "gpu", "models", "model", "port", "tokens",
    "hub",
)  # fmt: skip
ANEW = True


@functools.cache
def answers() -> str:
    """Return what the backends of this machine answer, as `tests.probed` takes it."""
    with mock.patch.object(backends, "LIMIT_S", PROBE_S):
        return json.dumps({name: backends._probe(name) for name in ("auto", *plugins.names())})


class Examination:
    """What `emberd doctor --json` printed, and its exit code.

    The backends were tried once for all, unless `anew`.
    """

    def __init__(self, home: Path, anew: bool = False, /, **environ: str) -> None:
        self.environ = clean_environ(home) | {"EMBERD_SERVER_PORT": str(free_port())} | environ
        command = ["doctor", "--json"]
        if anew:
            done = run_emberd(*command, home=home, environ=self.environ, entry="tests.unhurried")
        else:
            command = [answers(), *command]
            done = run_emberd(*command, home=home, environ=self.environ, entry="tests.probed")
        assert done.stdout, done.stderr.decode()
        self.code = done.returncode
        content = json.loads(done.stdout)
        self.ok: bool = content["ok"]
        self.rows: list[dict[str, Any]] = content["checks"]
        assert self.code == (0 if self.ok else 1)

    def row(self, check: str) -> dict[str, Any]:
        """Return the one row of a check."""
        (row,) = [row for row in self.rows if row["check"] == check]
        return row

    def failed(self) -> list[str]:
        """Return which checks failed."""
        return [row["check"] for row in self.rows if row["verdict"] == "failed"]


def test_a_machine_in_order_passes(home: Path) -> None:
    seen = Examination(home, ANEW)

    assert (seen.ok, seen.failed()) == (True, [])
    assert set(CHECKS) <= {row["check"] for row in seen.rows}
    assert " on cpu, " in seen.row("backend openvino")["detail"]
    assert seen.row("model")["verdict"] == "ok"
    assert "minilm" in seen.row("model")["detail"]
    assert "HF_HUB_OFFLINE" in seen.row("hub")["detail"]
    assert seen.row("port")["verdict"] == "ok"
    assert not home.exists()  # it changes nothing


def test_people_get_a_table_with_what_to_do(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("limits:\n  max_loded: 2\n")

    done = run_emberd(answers(), "doctor", home=home, entry="tests.probed")

    lines = done.stdout.decode().splitlines()
    line, advice = (line for line in lines if line.startswith("config"))
    assert done.returncode == 1
    assert "failed" in line
    assert f"{home}/config.yaml:2: limits.max_loded" in line
    assert advice == "config: Did you mean max_loaded?"
    assert lines.index(advice) > lines.index(line)


def test_a_broken_config_is_found_and_the_rest_is_checked_all_the_same(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("limits: [\n")

    seen = Examination(home)

    assert seen.failed() == ["config"]
    assert "not valid YAML" in seen.row("config")["detail"]
    assert seen.row("backend openvino")["verdict"] == "ok"
    unseen = {seen.row(name)["verdict"] for name in ("models", "model", "port", "tokens", "hub")}
    assert unseen == {"skipped"}


def test_a_misspelt_variable_is_a_warning(home: Path) -> None:
    seen = Examination(home, EMBERD_SERVER_PROT="1")

    warning = next(row for row in seen.rows if row["verdict"] == "warning")
    assert warning["check"] == "config"
    assert "$EMBERD_SERVER_PORT?" in warning["detail"]
    assert seen.ok


@pytest.mark.slow
def test_who_holds_the_port_is_named(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        seen = Examination(home, EMBERD_SERVER_PORT=str(number))

    assert seen.failed() == ["port"]
    assert f"(pid {os.getpid()})" in seen.row("port")["detail"]
    assert f"127.0.0.1:{number}" in seen.row("port")["detail"]
    assert "`server.port`" in seen.row("port")["advice"]


@pytest.mark.slow
def test_the_old_server_on_the_port_is_recognized(home: Path) -> None:
    number = free_port()
    old = Path(__file__).parent.parent / "service" / "old_server.py"
    with subprocess.Popen([sys.executable, old, str(number)]) as process:
        try:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", number)) == 0:
                        break
            seen = Examination(home, EMBERD_SERVER_PORT=str(number))
        finally:
            process.kill()

    assert seen.failed() == ["port"]
    assert "emberd service install --replace" in seen.row("port")["advice"]


def test_a_running_server_is_in_order(server: Server) -> None:
    number = server.url.rpartition(":")[2]

    seen = Examination(server.home, EMBERD_SERVER_PORT=number)

    assert seen.ok
    assert f"answers at 127.0.0.1:{number}" in seen.row("port")["detail"]


@pytest.mark.slow
def test_a_server_at_another_port_than_the_configured_one_is_seen(server: Server) -> None:
    number = server.url.rpartition(":")[2]

    seen = Examination(server.home)
    seen_any = Examination(server.home, EMBERD_SERVER_PORT="0")
    row, row_any = seen.row("port"), seen_any.row("port")

    assert seen.ok
    assert f"answers at http://127.0.0.1:{number} (pid {server.process.pid}); " in row["detail"]
    assert row["detail"].endswith(" is free")
    assert f":{number} (pid {server.process.pid}); any free port" in row_any["detail"]


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a short path, for sockets."""
    return tmp_path_factory.mktemp("h")


@pytest.mark.slow
def test_a_server_on_a_socket_alone_is_seen(short: Path) -> None:
    off = {"EMBERD_SERVER_PORT": "off"}
    config = f"server: {{port: off, socket: {short}/s}}"
    with Server(short, config=config, arguments=()):
        seen = Examination(short, **off)
    after = Examination(short, **off)

    assert (seen.ok, after.ok) == (True, True)
    assert seen.row("port")["detail"] == "off"
    assert f"answers on {short}/s, " in seen.row("socket")["detail"]
    assert f"{short}/s" in after.row("socket")["detail"]
    assert "pid" not in after.row("socket")["detail"]


def test_neither_port_nor_socket_is_a_failure(home: Path) -> None:
    seen = Examination(home, EMBERD_SERVER_PORT="off")

    assert seen.failed() == ["port"]
    assert "`server.socket`" in seen.row("port")["advice"]


def test_tokens_are_counted_and_never_shown(home: Path) -> None:
    home.mkdir()
    (home / "tokens").touch(0o600)
    (home / "tokens").write_text("s3cret-1\ns3cret-2\n")
    environ = {"EMBERD_SERVER_TOKEN_FILE": str(home / "tokens"), "EMBERD_TOKEN": "s3cret-3"}

    seen = Examination(home, **environ)
    (home / "tokens").chmod(0o644)
    open_to_all = Examination(home, **environ)

    count = f"2 tokens in {home}/tokens and the one in $EMBERD_TOKEN"
    assert (seen.ok, seen.row("tokens")["detail"]) == (True, count)
    assert open_to_all.failed() == ["tokens"]
    assert "chmod 600" in open_to_all.row("tokens")["advice"]
    assert "s3cret" not in str(seen.rows + open_to_all.rows)


@pytest.mark.slow
@pytest.mark.parametrize(("default", "verdict"), [("minilm", "warning"), ("mpnet", "failed")])
def test_a_hub_out_of_reach_matters_as_much_as_the_files_that_are_missing(
    home: Path, default: str, verdict: str
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"

    seen = Examination(home, HF_ENDPOINT=nobody, HF_HUB_OFFLINE="0", EMBERD_DEFAULT=default)

    row = seen.row("hub")
    assert row["verdict"] == verdict
    assert row["detail"].startswith(nobody)
    assert "HF_ENDPOINT" in row["advice"]
    assert seen.ok is (verdict == "warning")


@pytest.mark.slow
def test_the_doctor_does_not_wait_for_a_hub_that_says_nothing(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        seen = Examination(home, HF_ENDPOINT=silent_hub, HF_HUB_OFFLINE="0")

    assert seen.row("hub")["verdict"] == "warning"


def test_a_hub_that_answers_is_in_order(home: Path) -> None:
    repository = {"mlx-community/all-MiniLM-L6-v2-4bit": {"config.json": b"{}"}}
    with Hub(repository) as hub:
        seen = Examination(home, **hub.variables)

    assert seen.row("hub")["detail"] == f"{hub.url} answers"


def test_a_password_in_the_hubs_address_is_not_shown(home: Path) -> None:
    endpoint = f"http://me:s3cret@127.0.0.1:{free_port()}"

    seen = Examination(home, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0")

    assert "s3cret" not in str(seen.rows)


def test_offline_without_the_model_is_a_failure(home: Path) -> None:
    seen = Examination(home, EMBERD_DEFAULT="mpnet")

    assert seen.failed() == ["hub"]
    assert seen.row("model")["advice"] == "Run `emberd pull mpnet`."


def test_a_path_without_a_model_is_a_failure_and_is_not_pulled(home: Path) -> None:
    home.mkdir()
    mine = "{sources: [{path: /nowhere/mine}], dimensions: 8, pooling: mean}"
    (home / "config.yaml").write_text(f"default: mine\nmodels: {{mine: {mine}}}\n")

    seen = Examination(home)
    row = seen.row("model")
    pulled = run_emberd("pull", "mine", home=home, environ=seen.environ).stderr.decode()

    assert seen.failed() == ["model"]
    assert "no complete model at /nowhere/mine, the only source of mine" in row["detail"]
    advice = "Correct the path in models.mine.sources of the config file."
    assert row["advice"] == advice
    assert " ".join(pulled.split()).endswith(advice)


def test_a_damaged_lock_is_found(home: Path) -> None:
    (home / "state").mkdir(parents=True)
    (home / "state" / "lock.json").write_text("{")

    seen = Examination(home)

    assert seen.failed() == ["lock"]
    assert f"mv {home}/state/lock.json" in seen.row("lock")["advice"]
    assert (home / "state" / "lock.json").read_text() == "{"  # only looked at


def test_a_cache_that_cannot_be_written_is_found(home: Path) -> None:
    home.mkdir()
    (home / "cache").write_text("a file in its place")

    seen = Examination(home)

    assert seen.failed() == ["folder, cache"]
    assert "not a folder" in seen.row("folder, cache")["detail"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "says"),
    [
        ("raise ImportError('no such symbol')", "no such symbol"),
        ("import os; os._exit(9)", "exit code 9"),
        ("import os; os.abort()", "exit code -6"),
    ],
    ids=["import", "exit", "abort"],
)
def test_a_backend_whose_library_is_broken_says_why(
    home: Path, tmp_path: Path, library: str, says: str
) -> None:
    (tmp_path / "broken" / "openvino").mkdir(parents=True)
    (tmp_path / "broken" / "openvino" / "__init__.py").write_text(library)

    seen = Examination(home, ANEW, PYTHONPATH=str(tmp_path / "broken"))

    assert seen.failed() == ["backend openvino"]
    assert says in seen.row("backend openvino")["detail"]
    assert seen.row("backend mlx")["verdict"] != "failed"


@pytest.mark.slow
def test_a_backend_that_is_not_needed_is_no_failure(home: Path, tmp_path: Path) -> None:
    (tmp_path / "broken" / "mlx").mkdir(parents=True)
    (tmp_path / "broken" / "mlx" / "__init__.py").write_text("")
    (tmp_path / "broken" / "mlx" / "core.py").write_text("raise ImportError('no Metal')")

    seen = Examination(home, ANEW, PYTHONPATH=str(tmp_path / "broken"))

    if seen.row("backend mlx")["verdict"] == "skipped":
        pytest.skip("mlx is not installed here, so that it cannot be broken")
    assert seen.row("backend mlx")["verdict"] == "warning"
    assert "no Metal" in seen.row("backend mlx")["detail"]
    assert seen.ok


def test_a_backend_that_nobody_installed_is_named(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text("models: {minilm: {backend: abacus}}\n")

    seen = Examination(home)

    assert seen.failed() == ["backend abacus"]


def test_a_service_that_is_not_installed_is_offered_where_systemd_can_be_reached(
    home: Path, tmp_path: Path
) -> None:
    manager = Fake("systemd", tmp_path / "fake")
    mine = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": "/nowhere", "DBUS_SESSION_BUS_ADDRESS": ""}

    reached = Examination(home, PATH=f"{manager.bin}:/usr/bin:/bin", **mine).row("service")
    (tmp_path / "no").mkdir()
    refuses = tmp_path / "no" / "systemctl"
    refuses.write_text("#!/bin/sh\necho 'Failed to connect to bus: No medium found' >&2\nexit 1\n")
    refuses.chmod(0o755)
    unreached = Examination(home, PATH=f"{tmp_path}/no:/usr/bin:/bin", **mine).row("service")

    assert "`emberd service install`" in reached["detail"]
    assert unreached["verdict"] == "skipped"
    assert "systemd cannot be reached" in unreached["detail"]
    assert "service install" not in unreached["detail"] + unreached["advice"]


@pytest.mark.parametrize(
    ("noted", "verdict", "detail"),
    [
        ({"pid": 77, "ready": True, "exit": None}, "ok", "running, by systemd (pid 77)"),
        (
            {"pid": None, "exit": 78, "gone": True},
            "failed",
            "failed, by systemd, last exit code 78",
        ),
    ],
    ids=["running", "failed"],
)
def test_how_the_service_is_is_a_row(
    home: Path, tmp_path: Path, noted: dict[str, Any], verdict: str, detail: str
) -> None:
    manager = Fake("systemd", tmp_path / "fake")
    unit = tmp_path / ".config/systemd/user/emberd.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    (manager.bin / "state").mkdir()
    (manager.bin / "state" / unit.name).write_text(json.dumps(noted))

    environ = {"PATH": f"{manager.bin}:/usr/bin:/bin", "HOME": str(tmp_path)}
    row = Examination(home, **environ).row("service")

    assert (row["verdict"], row["detail"]) == (verdict, detail)
    assert ("emberd service logs" in row["advice"]) is (verdict == "failed")
