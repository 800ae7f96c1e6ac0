"""Where a model runs on this machine, by what is installed, without importing what computes."""

import subprocess
import sys
from pathlib import Path

import pytest

from emberd.backends import plugins
from emberd.backends.architectures.native import NATIVE
from emberd.backends.here import RunsOn, architecture_of, installed, runs_on
from emberd.config.load import load_config
from emberd.registry.spec import ModelSpec, Source
from tests.backends.references import TINY

HERE = {
    "mlx": frozenset({"bert", "odd"}),
    "openvino": frozenset({"bert"}),
    "silent": frozenset[str](),
}


@pytest.mark.parametrize(
    ("backend", "architecture", "found"),
    [
        ("auto", "bert", RunsOn(("mlx", "openvino"))),
        ("auto", "odd", RunsOn(("mlx",))),
        ("auto", "lfm2", RunsOn((), "architecture")),
        ("auto", None, RunsOn((), "unknown")),
        ("openvino", "bert", RunsOn(("openvino",))),
        ("openvino", "odd", RunsOn((), "architecture")),
        ("openvino", None, RunsOn((), "unknown")),
        ("silent", "lfm2", RunsOn(("silent",))),
        ("silent", None, RunsOn(("silent",))),
        ("nowhere", "bert", RunsOn((), "backend")),
    ],
)
def test_a_model_runs_where_its_architecture_does_on_the_backend_that_it_names(
    backend: str, architecture: str | None, found: RunsOn
) -> None:
    assert runs_on(backend, architecture, HERE) == found


def test_a_folder_says_more_of_its_architecture_than_an_entry(tmp_path: Path) -> None:
    source = Source(path="m")
    spec = ModelSpec(name="m", sources=(source,), dimensions=8, pooling="mean", architecture="bert")

    assert architecture_of(spec, None) == "bert"
    assert architecture_of(spec, TINY / "jina_bert") == "jina_bert"
    assert architecture_of(spec, tmp_path) == "bert"


def test_both_backends_are_installed_here_and_run_our_architectures() -> None:
    found = installed()

    assert set(found) >= {"mlx", "openvino"}
    assert found["openvino"] == NATIVE


def test_a_backend_without_its_library_or_that_is_broken_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_one.py").write_text("raise OSError('no')")
    (tmp_path / "lacking_one.py").write_text(
        "class It:\n    files, load, libraries = (), None, ('a-library-that-nobody-has',)\n"
    )
    own = {"mlx": "broken_one:It", "openvino": "lacking_one:It"}
    monkeypatch.setattr(plugins, "_OWN", own)
    monkeypatch.setattr(plugins, "names", lambda: sorted(own))

    assert installed() == {}


def test_every_model_of_the_catalog_runs_on_openvino(tmp_path: Path) -> None:
    catalog = load_config(environ={"EMBERD_HOME": str(tmp_path)}).catalog

    for spec in catalog:
        assert "openvino" in runs_on(spec.backend, spec.architecture, installed()).backends, spec


def test_nothing_that_computes_is_imported() -> None:
    code = (
        "import sys; from emberd.backends.here import installed; assert installed();"
        " heavy = {'mlx.core', 'openvino', 'tokenizers', 'onnxruntime'} & {*sys.modules};"
        " sys.exit(', '.join(heavy) or 0)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
