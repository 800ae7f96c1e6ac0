"""Which checks there are, with a configuration and without one that can be read."""

from pathlib import Path

import pytest

from emberd.doctor.checks import checks

NAMES = (
    "config", "python", "platform", "folders", "disk", "lock", "service", "memory", "backends",
    "models", "model", "stores", "cache", "port", "socket", "tokens", "hub",
)  # fmt: skip
SKIPPED = ("models", "model", "cache", "port", "tokens", "hub")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBERD_HOME", str(tmp_path))
    return tmp_path / "config.yaml"


def test_a_configuration_that_can_be_read_has_every_check(file: Path) -> None:
    file.write_text("models:\n  mine: {sources: [{hf: a/b}], dimensions: 8, pooling: cls}\n")

    found = checks(None)

    assert tuple(found) == NAMES
    (config,) = found["config"]()
    assert (config.verdict, config.detail.startswith(str(file))) == ("ok", True)
    assert found["socket"]() == []  # none is configured


def test_an_unknown_variable_is_a_warning(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBERD_SERVER_PROT", "1")

    _, warning = checks(None)["config"]()

    assert (warning.check, warning.verdict) == ("config", "warning")
    assert "EMBERD_SERVER_PROT" in warning.detail


def test_a_broken_configuration_fails_and_leaves_the_others(file: Path) -> None:
    file.write_text("limits:\n  max_loded: 1\n")

    found = checks(None)

    (config,) = found["config"]()
    assert (config.verdict, f"{file}:2" in config.detail) == ("failed", True)
    assert {finding.verdict for name in SKIPPED for finding in found[name]()} == {"skipped"}
    assert [finding.verdict for finding in found["lock"]()] == ["ok"]
    assert set(found) == set(NAMES) - {"stores", "socket"}
