"""Which backends work here, why the others do not, and whether a GPU is used."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from emberd.backends import plugins
from emberd.backends.here import WhyNot, architecture_of, installed, runs_on
from emberd.config.load import Config
from emberd.installing import pip
from emberd.models.availability import find_here
from emberd.registry.catalog import Catalog
from emberd.spaces.lock import LockFile
from emberd.verify.finding import Finding

LIMIT_S = 15.0  # the first import of a library from a slow disk
ADVICE: Final[Mapping[WhyNot, str]] = {
    "backend": "Install the package that provides it, or set another `backend`.",
    "architecture": "Install a package with a backend for it; see docs/writing-a-backend.md.",
    "unknown": "Add `architecture`, the `model_type` in its config.json, or pull it.",
}


def check(catalog: Catalog | None, default: str | None) -> list[Finding]:
    """Try every installed backend, each in its own process.

    A backend that does not work only fails the check if the default model needs it. Without a
    catalog (a broken configuration), that is the one `auto` picks.
    """
    names = plugins.names()
    with ThreadPoolExecutor(len(names) + 1) as pool:
        answers = dict(zip(("auto", *names), pool.map(_probe, ("auto", *names)), strict=True))
    auto = answers["auto"].get("resolved", "openvino")
    wanted = catalog.get(default).backend if catalog and default else "auto"
    used = {spec.backend for spec in catalog or ()}
    needed = auto if wanted == "auto" else wanted
    found = [
        _judge(name, answers[name], needed=name == needed, used=name in used) for name in names
    ]
    if needed not in names:
        advice = "Install the package that provides it, or set another `backend`."
        found.append(Finding(f"backend {needed}", "failed", "it is not installed", advice))
    return [*found, _gpu(answers.get("mlx", {}))]


def models(config: Config) -> list[Finding]:
    """Which models run here, and what to do about those that do not."""
    here, lock = installed(), LockFile(config.homes.state).read()
    reasons: dict[tuple[str, str], list[str]] = {}
    specs = list(config.catalog)
    for spec in specs:
        found = find_here(spec, config.homes.hub, lock.get(spec.name))
        architecture = architecture_of(spec, found.folder if found else None)
        why = {
            "backend": f"backend {spec.backend} is not installed",
            "architecture": f"no backend here runs the architecture {architecture!r}",
            "unknown": "unknown before a pull, as the entry states no `architecture`",
        }
        if why_not := runs_on(spec.backend, architecture, here).why_not:
            reasons.setdefault((why[why_not], ADVICE[why_not]), []).append(spec.name)
    without = sum(map(len, reasons.values()))
    return [
        Finding("models", "ok", f"{len(specs) - without} of {len(specs)} run here"),
        *(
            Finding("models", "note", f"{', '.join(names)}: {why}", advice)
            for (why, advice), names in reasons.items()
        ),
    ]


def _judge(name: str, answer: dict[str, Any], *, needed: bool, used: bool) -> Finding:
    check = f"backend {name}"
    by_default = ", used by the default model" if needed else ""
    if "devices" in answer:
        devices = ", ".join(answer["devices"]) or "devices not stated"
        return Finding(check, "ok", f"{answer['version'] or 'works'} on {devices}{by_default}")
    if "missing" in answer:
        extra = "emberd[mlx]" if name == "mlx" else answer["missing"]
        detail = f"{answer['missing']} is not installed{by_default}"
        advice = f"Run `{pip('install', extra)}`."
        if needed:
            return Finding(check, "failed", detail, advice)
        return Finding(check, "warning" if used else "skipped", detail, advice if used else "")
    detail = f"{answer['error']}{' The default model needs it.' if needed else ''}"
    return Finding(check, "failed" if needed else "warning", detail, answer.get("hint") or "")


def _gpu(mlx: dict[str, Any]) -> Finding:
    """Say whether there is a GPU, and whether MLX uses it (OpenVINO uses the CPU here)."""
    seen = "gpu" in mlx.get("devices", ())
    if sys.platform == "darwin" and platform.machine() == "arm64":
        there = "Apple silicon's GPU"
    else:
        there = "an NVIDIA GPU" if any(Path("/dev").glob("nvidia[0-9]*")) else ""
    if seen:
        return Finding("gpu", "ok", f"MLX computes on {there or 'a GPU'}")
    if there:
        advice = (
            f"Run `{pip('install', 'mlx[cuda]')}`." if sys.platform == "linux" else "Reinstall mlx."
        )
        return Finding(
            "gpu", "warning", f"this machine has {there}, but MLX does not see it", advice
        )
    return Finding("gpu", "ok", "no GPU; models run on the CPU")


def _probe(name: str) -> dict[str, Any]:
    argv = [sys.executable, "-P", "-m", "emberd.doctor.probe", name]
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {
            "error": f"It did not answer within {LIMIT_S:g} s.",
            "hint": "Check the device's driver.",
        }
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        ended = f"Its process ended with exit code {done.returncode}: {last or 'no output'}"
        return {"error": ended, "hint": "Reinstall it."}
    return answer
