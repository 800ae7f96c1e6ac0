"""The service managers that the tests run on: fake ones, and a real systemd just for the tests."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import psutil

from tests.serving import clean_environ, run_emberd, wait_for

FAKE = Path(__file__).with_name("fake_manager.py")
SYSTEMD = Path("/lib/systemd/systemd")


class ServiceManager(Protocol):
    """A service manager of one test; its commands come first on `path`."""

    name: str
    bin: Path

    def end(self) -> None:
        """End what it runs."""
        ...


class Fake:
    """`launchctl` or `systemctl` from fake_manager.py."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        script = self.bin / FAKE.name
        script.write_text(
            f"#!{sys.executable} -PS\n"
            f"import sys; sys.path.append({str(FAKE.parent)!r})\n"
            f"import {FAKE.stem}; {FAKE.stem}.main()\n"
        )
        script.chmod(0o755)
        commands = {"launchd": ["launchctl"], "systemd": ["systemctl", "journalctl", "loginctl"]}[
            name
        ]
        for command in (*commands, "watch"):
            (self.bin / command).symlink_to(script)

    def calls(self) -> list[str]:
        """Return the commands that it was given."""
        calls = self.bin / "state" / "calls"
        return calls.read_text().splitlines() if calls.exists() else []

    def end(self) -> None:
        """End all that its watchers watch."""
        for process in psutil.process_iter(["cmdline"]):
            if str(self.bin / "watch") in (process.info["cmdline"] or ()):
                children = process.children(recursive=True)
                process.kill()
                for child in children:
                    child.kill()


def why_no_systemd() -> str | None:
    """Say why we cannot run our own systemd here; None if we can."""
    if os.getuid() != 0:
        return "a mount namespace for a systemd of its own takes root"
    if not (SYSTEMD.exists() and shutil.which("systemctl") and Path("/usr/bin/unshare").exists()):
        return "systemd is not installed"
    return None


class RealSystemd:
    """`systemd --user` with its own /run, so that it does not meet this machine's."""

    name = "systemd"

    def __init__(self, folder: Path, home: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        log = folder / "systemd.log"
        script = (
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0"
            f" && touch {folder}/mounted"
            f" && XDG_RUNTIME_DIR=/run/user/0 exec {SYSTEMD} --user --log-target=console"
        )
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                ["/usr/bin/unshare", "--mount", "--propagation", "private", "sh", "-c", script],
                env={"HOME": str(home), "PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        wrapper = self.bin / "systemctl"
        wrapper.write_text(
            f"#!/bin/sh\nexport XDG_RUNTIME_DIR=/run/user/0\n"
            f'exec nsenter --target {self.process.pid} --mount /usr/bin/systemctl "$@"\n'
        )
        wrapper.chmod(0o755)
        wait_for((folder / "mounted").exists)
        wait_for(self._answers, within_s=20)

    def _answers(self) -> bool:
        done = subprocess.run([self.bin / "systemctl", "--user", "show-environment"], check=False,
                              capture_output=True)  # fmt: skip
        return done.returncode == 0

    def end(self) -> None:
        """End it, and with it all that it runs."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Machine:
    """A home, a manager and a free port: everything that `emberd service` deals with."""

    def __init__(self, manager: ServiceManager, home: Path, port: int) -> None:
        self.manager = manager
        self.home = home
        self.port = port
        self.emberd_home = home / "emberd"
        self.emberd_home.mkdir(parents=True, exist_ok=True)
        self.config = self.emberd_home / "config.yaml"
        self.environ = clean_environ(self.emberd_home) | {
            "EMBERD_SERVER_PORT": str(port),
            "HOME": str(home),
            "PATH": f"{manager.bin}:/usr/bin:/bin",
        }

    @property
    def unit(self) -> Path:
        """Where the unit's file is."""
        if self.manager.name == "launchd":
            return self.home / "Library/LaunchAgents/emberd.server.plist"
        return self.home / ".config/systemd/user/emberd.service"

    def run(self, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run `emberd` with these arguments."""
        done = run_emberd(*arguments, home=self.home, environ=self.environ | environ)
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def said(self, *arguments: str, **environ: str) -> str:
        """Run `emberd`, which must succeed; return what it printed."""
        done = self.run(*arguments, **environ)
        assert done.returncode == 0, done.stderr
        return done.stdout
