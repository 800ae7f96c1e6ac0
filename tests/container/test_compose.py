"""compose.yaml, started by podman-compose: as safe as what the page does by hand."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from emberd.server.run import DRAIN_S, SHUTDOWN_GRACE_S
from tests.container.machine import ROOT, Podman, run
from tests.ports import free_port
from tests.serving import wait_for

COMPOSE = str(Path(sys.executable).parent / "podman-compose")
FILE = ROOT / "compose.yaml"
TOKEN = "of-the-compose-file"  # noqa: S105 - for this test
OWNER = 65532


@pytest.fixture
def address(podman: Podman, tmp_path: Path) -> Iterator[str]:
    """Where the service of compose.yaml listens."""
    shutil.copy(FILE, tmp_path)
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    os.chown(tmp_path / "token", OWNER, OWNER)
    port = free_port()
    environ = podman.environ | {"EMBERD_PORT": str(port)}
    try:
        run([COMPOSE, "up", "--detach", "--no-build"], environ=environ, folder=tmp_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        run([COMPOSE, "down", "--volumes"], environ=environ, folder=tmp_path, check=False)


def is_up(address: str) -> bool:
    try:
        return httpx2.get(f"{address}/ready", trust_env=False).is_success
    except httpx2.TransportError:
        return False


@pytest.mark.slow
def test_compose_starts_it_with_its_token_and_few_rights(address: str, podman: Podman) -> None:
    wait_for(lambda: is_up(address))

    right = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx2.get(f"{address}/models", trust_env=False).status_code == 401
    assert httpx2.get(f"{address}/models", headers=right, trust_env=False).is_success
    by_name = {**right, "Host": "emberd:8767"}
    assert httpx2.get(f"{address}/models", headers=by_name, trust_env=False).is_success

    (name,) = podman("ps", "--format", "{{.Names}}").stdout.split()
    state = json.loads(podman("inspect", name).stdout)[0]
    status = podman("exec", name, "cat", "/proc/1/status").stdout
    assert state["HostConfig"]["ReadonlyRootfs"]
    assert re.search(r"^Uid:\t65532\t", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    podman("healthcheck", "run", name)


def test_it_is_published_on_this_machine_alone_and_gets_the_time_to_end() -> None:
    service = yaml.safe_load(FILE.read_text())["services"]["emberd"]

    assert [each.split(":")[0] for each in service["ports"]] == ["127.0.0.1"]
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_S + SHUTDOWN_GRACE_S
    assert "EMBERD_TOKEN" not in service["environment"]
