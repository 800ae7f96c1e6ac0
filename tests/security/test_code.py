"""What emberd's own code never does, wherever it stands."""

import ast
from functools import cache
from pathlib import Path

import pytest

import emberd

ROOT = Path(emberd.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN = {
    # what runs code that is data
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy",
    "code", "codeop", "torch", "transformers",
    # what unpacks files to where an archive says; packages are pip's business
    "tarfile", "zipfile", "zipimport",
}  # fmt: skip
CALLS = {"eval", "exec", "compile", "__import__"}


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_unpacked_or_evaluated(path: Path) -> None:
    nodes = nodes_of(path)
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    called = {
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    unsafe = [
        keyword.arg
        for node in nodes
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("allow_pickle", "trust_remote_code", "shell")
    ]

    assert not {name.partition(".")[0] for name in imported} & FORBIDDEN
    assert not called & CALLS
    assert not unsafe


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_is_read_as_data(path: Path) -> None:
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("yaml.load", "yaml.compose"):
            # BaseLoader makes nothing but text, and lists and mappings of it
            assert any(f"{name}Loader" in ast.unparse(node) for name in ("Safe", "Base"))
