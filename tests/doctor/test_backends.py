"""What is said about a backend that works, is not installed, fails, or does not answer."""

import sys
from pathlib import Path
from typing import Any

import pytest

from emberd.doctor import backends
from emberd.doctor.backends import _gpu, _judge, _probe


@pytest.mark.parametrize(
    ("answer", "needed", "used", "verdict", "has_advice"),
    [
        ({"version": "1.2", "devices": ["CPU"]}, True, True, "ok", False),
        ({"missing": "mlx"}, True, True, "failed", True),
        ({"missing": "mlx"}, False, True, "warning", True),
        ({"missing": "mlx"}, False, False, "skipped", False),
        ({"error": "No device.", "hint": "Look."}, True, True, "failed", True),
        ({"error": "No device."}, False, True, "warning", False),
    ],
)
def test_a_backend_only_fails_the_check_if_the_default_model_needs_it(
    answer: dict[str, Any], needed: bool, used: bool, verdict: str, has_advice: bool
) -> None:
    finding = _judge("mlx", answer, needed=needed, used=used)

    assert (finding.check, finding.verdict) == ("backend mlx", verdict)
    assert bool(finding.advice) is has_advice
    assert ("default model" in finding.detail) is needed


def test_the_gpu_is_the_one_that_mlx_computes_on() -> None:
    with_gpu, without = _gpu({"devices": ["cpu", "gpu"]}), _gpu({})

    assert with_gpu.verdict == "ok"
    assert "MLX" in with_gpu.detail
    assert without.check == "gpu"


def probe_with(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Probe with a Python that does this instead."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return _probe("openvino")


def test_the_answer_of_a_probe_is_its_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = probe_with("""echo "{\\"asked\\": \\"$4\\"}" """, tmp_path, monkeypatch)

    assert said == {"asked": "openvino"}


def test_a_probe_that_crashes_is_told_by_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = probe_with("echo first >&2; echo libdevice is broken >&2; exit 3", tmp_path, monkeypatch)

    assert "exit code 3" in said["error"]
    assert "libdevice is broken" in said["error"]
    assert "first" not in said["error"]
    assert said["hint"]


def test_a_probe_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "LIMIT_S", 0.1)

    said = probe_with("exec sleep 60", tmp_path, monkeypatch)

    assert "0.1 s" in said["error"]
    assert said["hint"]
