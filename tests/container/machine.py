"""A podman of its own for the tests, a base of Debian's packages, blocks of docs/container.md.

No registry of images is asked for anything. The commands are those of the page; what a machine
needs beside them (where pip finds packages, a runtime that its kernel takes) is stated here.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "container.md"
SUITE = "trixie"  # its Python is that of the Dockerfile's own base
BASE = "localhost/base"
NOT_NEEDED = ("doc", "info", "locale", "man")
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout")
READ_BY_THE_BUILD = "only-the-build-may-read-this"  # in pip's configuration
RUN_S = 600


class Podman:
    """Runs commands with images, containers, volumes and secrets in `folder` alone.

    Attributes:
        environ: the environment of every command; podman-compose finds the same podman by it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Root without CAP_SYS_RESOURCE may not raise limits, and podman's own are high. runc,
        # because crun refuses some cgroups: "cgroups in hybrid mode not supported".
        (folder / "containers.conf").write_text(
            "[containers]\n"
            'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
            f'[engine]\nruntime = "runc"\nlock_type = "file"\ntmp_dir = "{folder}/libpod"\n'
            f'[network]\nnetwork_config_dir = "{folder}/networks"\n'
        )
        (folder / "storage.conf").write_text(
            '[storage]\ndriver = "overlay"\n'
            f'graphroot = "{folder}/images"\nrunroot = "{folder}/run"\n'
        )
        self.environ = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `podman ARGUMENT...`; unless not `check`, it has to succeed."""
        return run(["podman", *arguments], environ=self.environ, check=check)

    def make_base(self) -> None:
        """Make the image `BASE`: Debian with Python, by mmdebstrap."""
        archive = self._folder / "base.tar"
        left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in NOT_NEEDED]
        packages = "--include=ca-certificates,python3-venv"
        unsafe = "--dpkgopt=force-unsafe-io"  # nobody needs it after a power cut
        run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=apt",
                packages,
                unsafe,
                *left_out,
                SUITE,
                str(archive),
            ]
        )
        self("import", "--quiet", str(archive), BASE)
        archive.unlink()

    def build_options(self) -> list[str]:
        """Return what `podman build` needs on this machine: its base, and pip's configuration.

        In a chroot, because builds take other limits than containers.conf states.
        """
        asked = run([sys.executable, "-m", "pip", "config", "list"]).stdout
        found = dict(re.findall(rf"^\S+\.({'|'.join(PIP_KEYS)})='(.*)'$", asked, re.MULTILINE))
        config = self._folder / "pip.conf"
        lines = [f"{key} = {value}" for key, value in found.items() if "file:" not in value]
        config.write_text("\n".join(["[global]", f"# {READ_BY_THE_BUILD}", *lines, ""]))
        certificates = [f"--volume={found['cert']}:{found['cert']}:ro"] if "cert" in found else []
        own = [f"--build-arg=BASE={BASE}", "--isolation=chroot"]
        return [*own, f"--secret=id=pip.conf,src={config}", *certificates]

    def close(self) -> None:
        """Stop and delete everything."""
        self("rm", "--all", "--force", "--time", "0", check=False)
        self("rmi", "--all", "--force", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def run(
    command: list[str],
    *,
    environ: Mapping[str, str] | None = None,
    check: bool = True,
    folder: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run a command; unless not `check`, it has to succeed."""
    done = subprocess.run(
        command, env=environ, cwd=folder, capture_output=True, text=True, timeout=RUN_S, check=False
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def block(begins: str, language: str = "sh") -> str:
    """Return the one block of the page that begins so."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = (each for each in blocks if each.startswith(begins))
    return str(found)
