"""The image as docs/container.md builds and runs it: safe by default, and ending gently."""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emberd.server.run import DRAIN_S, SHUTDOWN_GRACE_S
from tests.container.machine import PAGE, READ_BY_THE_BUILD, Podman, block, run
from tests.ports import free_port
from tests.serving import wait_for

pytestmark = pytest.mark.slow


class Container:
    """The container `emberd`, and requests to it from outside."""

    def __init__(self, podman: Podman, folder: Path, port: int) -> None:
        self._podman = podman
        self._folder = folder
        self._port = port
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def shell(self, commands: str) -> str:
        """Run a block of the page in the folder, at a free port; return what it prints."""
        here = commands.replace("127.0.0.1:8767", f"127.0.0.1:{self._port}")
        return run(["sh", "-ec", here], environ=self._podman.environ, folder=self._folder).stdout

    @property
    def token(self) -> dict[str, str]:
        """The header that lets a request in."""
        return {"Authorization": f"Bearer {(self._folder / 'token').read_text().strip()}"}

    def begin(self, commands: str) -> None:
        """Run what starts it, and wait until it listens."""
        self.shell(commands)
        wait_for(lambda: "is listening on" in self.log())

    def log(self) -> str:
        """Return what the server and its workers wrote."""
        done = self._podman("logs", "emberd")
        return done.stdout + done.stderr

    def inside(self, *command: str, check: bool = True) -> str:
        """Run a command in it; return what it prints."""
        done = self._podman("exec", "emberd", *command, check=check)
        return (done.stdout + done.stderr).strip()

    def embed(self, *texts: str) -> httpx2.Response:
        """POST /embed with the token."""
        return self.http.post("/embed", json={"texts": texts}, headers=self.token)

    def is_busy(self) -> bool:
        """Whether a request is being answered by a model."""
        rows = self.http.get("/models", headers=self.token).json()["models"]
        return any(row["in_flight"] for row in rows)

    def takes_no_more(self) -> bool:
        """Whether it has stopped to take requests."""
        try:
            return not httpx2.get(f"{self.http.base_url}/ready", trust_env=False).is_success
        except httpx2.TransportError:
            return True

    def worker(self) -> int:
        """Return the id of its one worker, outside the container."""
        rows = self._podman("top", "emberd", "hpid", "args").stdout.splitlines()
        (row,) = (each for each in rows if "emberd.worker" in each)
        return int(row.split()[0])

    def inspect(self) -> Any:  # noqa: ANN401 - podman's JSON
        """Return what podman knows of it."""
        return json.loads(self._podman("inspect", "emberd").stdout)[0]


@pytest.fixture
def container(podman: Podman, tmp_path: Path) -> Iterator[Container]:
    """The container of the page's section "Run", without a model."""
    container = Container(podman, tmp_path, free_port())
    try:
        container.begin(block("openssl rand"))
        yield container
    finally:
        container.http.close()
        podman("rm", "--force", "--volumes", "--time", "0", "emberd", check=False)
        podman("volume", "rm", "--force", "emberd", check=False)
        podman("secret", "rm", "emberd-token", check=False)


@pytest.fixture
def with_model(container: Container, podman: Podman, tmp_path: Path, minilm: Path) -> Container:
    """The container of the section on models in a folder, with MiniLM."""
    podman("rm", "--force", "emberd")
    shutil.copytree(minilm, tmp_path / "models" / "minilm")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(block("models:", "yaml"))
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() != "root" or folder.name.startswith("pytest-"):
            folder.chmod(0o755)  # another user reads them; pytest makes its folders private
    container.begin(block("podman run -d"))
    return container


def test_without_a_token_it_does_not_start(podman: Podman) -> None:
    podman("run", "--detach", "--name", "open", "emberd")
    try:
        assert podman("wait", "open").stdout.strip() == "78"
        assert "no token is set" in podman("logs", "open").stderr
    finally:
        podman("rm", "--force", "--volumes", "open")


def test_who_it_is_and_what_it_may(container: Container) -> None:
    powers = container.inside("cat", "/proc/1/status")

    assert container.inside("id", "-u") == container.inside("id", "-g") == "65532"
    assert re.search(r"^CapEff:\t0+$", powers, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", powers, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", powers, re.MULTILINE)
    assert "\0serve\0" in container.inside("cat", "/proc/1/cmdline")
    for place in ("/x", "/opt/emberd/x", "/etc/x"):
        assert "Read-only file system" in container.inside("touch", place, check=False)


def test_who_may_ask_it(container: Container) -> None:
    assert container.http.get("/health").json()["status"] == "ok"
    assert container.http.get("/ready").status_code == 200
    assert container.http.get("/models").status_code == 401
    assert container.http.get("/models", headers=container.token).status_code == 200
    named = {**container.token, "Host": "embeddings.example.com"}
    assert container.http.get("/models", headers=named).status_code == 403


def test_the_health_check_tells_a_server_that_hangs(container: Container, podman: Podman) -> None:
    podman("healthcheck", "run", "emberd")
    pid = container.inspect()["State"]["Pid"]

    run(["kill", "-STOP", str(pid)])
    try:
        assert podman("healthcheck", "run", "emberd", check=False).returncode == 1
    finally:
        run(["kill", "-CONT", str(pid)])
    podman("healthcheck", "run", "emberd")


def test_it_embeds_and_finishes_what_it_has_when_it_is_stopped(
    with_model: Container, podman: Podman
) -> None:
    answer = json.loads(with_model.shell(block("curl")))
    assert len(answer["embeddings"][0]) == answer["dimensions"] == 384
    assert "minilm" in with_model.inside("emberd", "ps")

    worker = with_model.worker()
    os.kill(worker, signal.SIGSTOP)  # so that the request is not answered before the end has begun
    with ThreadPoolExecutor(2) as threads:
        asked = threads.submit(with_model.embed, "This one is in progress.")
        wait_for(with_model.is_busy)
        stopped = threads.submit(podman, "stop", "emberd")
        wait_for(with_model.takes_no_more)
        assert not asked.done()
        os.kill(worker, signal.SIGCONT)
        assert asked.result().status_code == 200
        stopped.result()
    assert with_model.inspect()["State"]["ExitCode"] == 0


def test_the_image_has_no_trace_of_how_it_was_built(podman: Podman) -> None:
    told = podman("history", "--no-trunc", "emberd").stdout + podman("inspect", "emberd").stdout
    folder = podman("image", "mount", "emberd").stdout.strip()
    try:
        found = run(["grep", "-rlF", "--exclude-dir=proc", READ_BY_THE_BUILD, folder], check=False)
        files = [Path(folder, "opt/emberd"), Path(folder, "etc")]
        assert all(each.is_dir() for each in files)
        assert not Path(folder, "source").exists()
        assert not [*Path(folder, "opt/emberd").glob("lib/python3*/site-packages/pip")]
    finally:
        podman("image", "unmount", "emberd")

    assert found.returncode == 1, found.stdout
    assert READ_BY_THE_BUILD not in told
    assert "index-url" not in told
    assert "://" not in told.replace("docker://", "")


def test_the_image_is_as_large_as_the_page_says(podman: Podman) -> None:
    size = {
        name: json.loads(podman("image", "inspect", name).stdout)[0]["Size"] / 1e6
        for name in ("emberd", "base")
    }
    (own, whole) = re.findall(r"\*\*(\d+) MB\*\*", PAGE.read_text())

    assert size["emberd"] - size["base"] == pytest.approx(int(own), rel=0.1)
    assert size["emberd"] == pytest.approx(int(whole), rel=0.1)


def test_the_time_to_end_is_what_emberd_may_take() -> None:
    stated = {int(each) for each in re.findall(r"--stop-timeout (\d+)", PAGE.read_text())}

    assert stated == {20}
    assert min(stated) > DRAIN_S + SHUTDOWN_GRACE_S
