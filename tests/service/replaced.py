"""Runs a stand-in for the server that emberd replaces: by hand, or as its LaunchAgent."""

import os
import plistlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from emberd.client.address import Address
from emberd.client.health import read_health
from emberd.service.previous import is_old_server
from tests.service.managers import Machine
from tests.serving import wait_for

OLD = Path(__file__).with_name("old_server.py")
LABEL = "com.cmem.mlx-server"


def old_answers(port: int) -> bool:
    """Say whether the old server answers there."""
    return is_old_server(read_health(Address(f"http://127.0.0.1:{port}"), timeout_s=5))


@contextmanager
def old_server(port: int, folder: Path, *more: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the old server by hand; whatever runs in its folder afterwards is ended too."""
    folder.mkdir()
    process = subprocess.Popen([sys.executable, str(OLD), str(port), *more], cwd=folder)
    try:
        wait_for(lambda: old_answers(port))
        yield process
    finally:
        for other in psutil.process_iter(["cmdline", "cwd"]):
            if str(OLD) in (other.info["cmdline"] or ()) and other.info["cwd"] == str(folder):
                other.kill()
        process.wait(10)


def load_old_agent(mac: Machine) -> Path:
    """Load the old server's LaunchAgent, and return its file once the server answers."""
    file = mac.home / f"Library/LaunchAgents/{LABEL}.plist"
    file.parent.mkdir(parents=True)
    job = {
        "Label": LABEL,
        "ProgramArguments": [sys.executable, str(OLD), str(mac.port)],
        "KeepAlive": True,
        "RunAtLoad": True,
        "StandardErrorPath": str(mac.home / "old.log"),
    }
    file.write_bytes(plistlib.dumps(job))
    subprocess.run(
        [mac.manager.bin / "launchctl", "bootstrap", f"gui/{os.getuid()}", file],
        check=True,
        env=mac.environ,
    )
    wait_for(lambda: old_answers(mac.port))
    return file
