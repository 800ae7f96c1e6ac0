"""Checks of the machine: Python, platform, memory, disk."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from emberd.config.paths import Homes
from emberd.config.settings import LimitsSettings
from emberd.files import is_gone
from emberd.units import format_size
from emberd.verify.finding import Finding

NEEDED_PYTHON = (3, 11)
LITTLE_DISK, NO_DISK = 2 * 2**30, 100 * 2**20
LITTLE_MEMORY = 512 * 2**20


def python() -> list[Finding]:
    """Which Python this is, and whether it is built for this processor."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < NEEDED_PYTHON:
        return [Finding("python", "failed", detail, "Install emberd with Python 3.11 or later.")]
    if sys.platform == "darwin" and _is_translated():
        return [
            Finding(
                "python",
                "failed",
                f"{detail}, built for Intel and running under Rosetta, where MLX cannot work",
                "Install emberd with an arm64 Python.",
            )
        ]
    return [Finding("python", "ok", detail)]


def _is_translated() -> bool:
    """Ask macOS whether this process runs under Rosetta (developer.apple.com says how)."""
    done = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "sysctl.proc_translated"],
        capture_output=True,
        timeout=5,
        check=False,
    )
    return done.stdout.strip() == b"1"


def system() -> list[Finding]:
    """Which platform this is."""
    cores = f"{os.cpu_count()} cores"
    name = f"{platform.system()} {platform.release()}, {platform.machine()}, {cores}"
    return [Finding("platform", "ok", name)]


def memory(limits: LimitsSettings) -> list[Finding]:
    """Whether there is enough memory, free and in total."""
    now = psutil.virtual_memory()
    return [judge_memory(now.available, now.total, budget=limits.memory_budget)]


def judge_memory(available: int, total: int, *, budget: int) -> Finding:
    """Judge whether that many bytes are enough for models."""
    detail = (
        f"{format_size(available)} free of {format_size(total)};"
        f" the budget for models is {format_size(budget)}"
    )
    if budget > total:
        advice = f"Set `limits.memory_budget` below {format_size(total)}."
        return Finding("memory", "warning", detail, advice)
    if available < LITTLE_MEMORY:
        return Finding("memory", "warning", detail, "Close other programs, or use a smaller model.")
    return Finding("memory", "ok", detail)


def disk(homes: Homes) -> list[Finding]:
    """How much disk is free where models and state are kept."""
    places = {"models": homes.hub, "state": homes.state}
    return [judge_disk(f"disk, {name}", place, free(place)) for name, place in places.items()]


def free(folder: Path) -> int:
    """Return the free bytes on the disk where a folder is, or would be."""
    return shutil.disk_usage(_nearest(folder)).free


def judge_disk(check: str, folder: Path, free_bytes: int) -> Finding:
    """Judge whether that many free bytes are enough for models."""
    detail = f"{format_size(free_bytes)} free at {folder}"
    advice = "Free some: `emberd list -v` shows what models take, `emberd remove NAME` deletes one."
    if free_bytes < NO_DISK:
        return Finding(check, "failed", detail, advice)
    return Finding(check, "warning" if free_bytes < LITTLE_DISK else "ok", detail, advice)


def folders(homes: Homes) -> list[Finding]:
    """Whether emberd can write to the folders it uses."""
    places = {"state": homes.state, "cache": homes.cache, "models": homes.hub}
    return [_writable(f"folder, {name}", folder) for name, folder in places.items()]


def _writable(check: str, folder: Path) -> Finding:
    nearest = _nearest(folder)
    try:
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is not a folder")
        if nearest == folder:
            with tempfile.TemporaryFile(dir=folder):
                pass
        elif not os.access(nearest, os.W_OK | os.X_OK):
            raise PermissionError(f"it cannot be created in {nearest}")
    except OSError as error:
        why = error.strerror or str(error)
        advice = "Fix its owner and permissions, or set EMBERD_HOME (for models: HF_HOME)."
        return Finding(check, "failed", f"{folder} cannot be written: {why}", advice)
    return Finding(
        check, "ok", str(folder) + ("" if nearest == folder else " (created when needed)")
    )


def _nearest(folder: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    return next(place for place in (folder, *folder.parents) if not is_gone(place))
