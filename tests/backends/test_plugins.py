"""Backends by name: found without being imported; missing and broken ones are told apart."""

import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from emberd.backends import plugins
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import BackendBrokenError, BackendMissingError

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a distribution `broken-things` whose one module is called `name` and reads `code`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(name: str, code: str) -> None:
        (tmp_path / f"{name}.py").write_text(code)
        about = tmp_path / "broken_things-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: broken-things\nVersion: 1.0\n"
        )
        (about / "entry_points.txt").write_text(f"[{plugins.GROUP}]\n{name} = {name}:Backend\n")

    return install


def test_our_own_names_are_those_of_the_entry_points() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]

    assert project["entry-points"][plugins.GROUP] == plugins._OWN


def test_an_installed_plugin_is_listed_without_being_imported(install: Install) -> None:
    install("explosive_backend", "raise SystemError")

    assert plugins.names() == ["explosive_backend", "mlx", "onnx", "openvino"]
    assert "explosive_backend" not in sys.modules


def test_a_backend_is_made() -> None:
    assert isinstance(plugins.load("openvino"), OpenVINOBackend)


def test_a_missing_backend_is_met_with_the_installed_ones() -> None:
    with pytest.raises(
        BackendMissingError, match=r"No backend 'torch'.* mlx, onnx, openvino"
    ) as caught:
        plugins.load("torch")

    assert caught.value.hint is not None
    assert "Install the package" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "code", "cause"),
    [
        ("backend_one", "import no_such_library", "ModuleNotFoundError: No module named"),
        ("backend_two", "1 / 0", "ZeroDivisionError: division by zero"),
        ("backend_three", "class Other: ...", "AttributeError: .*'Backend'"),
        ("backend_four", "def Backend(): raise OSError('no driver')", "OSError: no driver"),
    ],
)
def test_a_broken_backend_is_named_with_its_distribution_and_the_cause(
    install: Install, name: str, code: str, cause: str
) -> None:
    install(name, code)

    with pytest.raises(
        BackendBrokenError, match=f"'{name}' of broken-things cannot be used: {cause}"
    ):
        plugins.load(name)


def test_a_class_that_is_no_backend_is_broken(install: Install) -> None:
    install("backend_five", "class Backend:\n    files = ()")

    with pytest.raises(BackendBrokenError, match=r"of broken-things .*libraries .*load"):
        plugins.load("backend_five")


def test_a_plugin_does_not_take_the_name_of_our_own(install: Install) -> None:
    install("openvino", "raise SystemError")

    assert isinstance(plugins.load("openvino"), OpenVINOBackend)


@pytest.mark.parametrize("name", ["mlx", "onnx", "openvino", "somebody's"])
def test_only_auto_stands_for_another_name(name: str) -> None:
    assert plugins.resolve(name) == name
    assert plugins.resolve("auto") in ("mlx", "openvino")
