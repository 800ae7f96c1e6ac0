"""What the backends' answers mean, by whether the default model needs them."""

import sys
from pathlib import Path
from typing import Any

import pytest

from emberd.backends import plugins
from emberd.config.load import load_config
from emberd.doctor import backends
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec, Source
from emberd.verify.finding import Finding

WORKS = {"version": "1.2", "devices": ["cpu"]}
BROKEN = {"error": "It broke.", "hint": "Mend it."}
MISSING = {"missing": "mlx"}


def check(monkeypatch: pytest.MonkeyPatch, mlx: dict[str, Any], *used: str) -> dict[str, Finding]:
    """Check where MLX answers so and models use these backends, the default one the first."""
    answers = {"auto": {"resolved": "openvino"}, "openvino": WORKS, "mlx": mlx}
    monkeypatch.setattr(backends, "_probe", answers.__getitem__)
    monkeypatch.setattr(plugins, "names", lambda: ["mlx", "openvino"])
    source = Source(hf="a/b")
    models = Catalog(
        ModelSpec(
            name=f"m{number}", sources=(source,), dimensions=8, pooling="cls", backend=backend
        )
        for number, backend in enumerate(used)
    )
    return {finding.check: finding for finding in backends.check(models, "m0")}


@pytest.mark.parametrize(
    ("answer", "used", "verdict", "advice"),
    [
        (BROKEN, ["mlx"], "failed", "Mend it."),
        (BROKEN, ["auto"], "warning", "Mend it."),
        (MISSING, ["mlx"], "failed", "emberd[mlx]"),
        (MISSING, ["openvino", "mlx"], "warning", "emberd[mlx]"),
        (MISSING, ["openvino"], "skipped", ""),
        (WORKS, ["mlx"], "ok", ""),
    ],
)
def test_a_backend_matters_as_much_as_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, Any],
    used: list[str],
    verdict: str,
    advice: str,
) -> None:
    found = check(monkeypatch, answer, *used)

    assert found["backend mlx"].verdict == verdict
    assert advice in found["backend mlx"].advice
    assert bool(found["backend mlx"].advice) is bool(advice)
    assert found["backend openvino"].verdict == "ok"


def test_a_gpu_that_mlx_uses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = check(monkeypatch, {"version": "1", "devices": ["gpu"]}, "mlx")

    assert found["gpu"].verdict == "ok"
    assert "MLX computes on" in found["gpu"].detail


def test_a_probe_that_says_nothing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    answer = backends._probe("openvino")

    assert "exit code 1" in answer["error"]


def probe_with(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Probe with a Python that does this instead."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return backends._probe("openvino")


def test_a_probe_that_crashes_is_told_by_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = probe_with("echo first >&2; echo libdevice is broken >&2; exit 3", tmp_path, monkeypatch)

    assert "exit code 3" in said["error"]
    assert "libdevice is broken" in said["error"]
    assert "first" not in said["error"]


def test_a_probe_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "LIMIT_S", 0.1)

    said = probe_with("exec sleep 60", tmp_path, monkeypatch)

    assert "0.1 s" in said["error"]
    assert said["hint"]


def test_models_that_run_on_no_backend_are_named_with_the_reason(tmp_path: Path) -> None:
    entry = "{{sources: [{{hf: a/b}}], dimensions: 8, pooling: cls, {0}}}"
    lines = {
        "fine": "architecture: bert",
        "odd": "architecture: lfm2",
        "odder": "architecture: lfm2",
        "lost": "architecture: bert, backend: nowhere",
        "new": "normalize: true",
    }
    models = "".join(f"  {name}: {entry.format(line)}\n" for name, line in lines.items())
    (tmp_path / "config.yaml").write_text(f"models:\n{models}")
    config = load_config(environ={"EMBERD_HOME": str(tmp_path)})

    first, *others = backends.models(config)

    every = len(list(config.catalog))
    assert (first.verdict, first.detail) == ("ok", f"{every - 4} of {every} run here")
    assert [(row.verdict, row.detail.partition(":")[0]) for row in others] == [
        ("note", "odd, odder"), ("note", "lost"), ("note", "new"),
    ]  # fmt: skip
    assert "'lfm2'" in others[0].detail
    assert "nowhere" in others[1].detail
    assert all(row.advice for row in others)
