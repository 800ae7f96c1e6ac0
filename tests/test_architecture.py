"""Shape of the code itself. Import rules live in pyproject.toml (import-linter)."""

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

import emberd

ROOT = Path(emberd.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_says_its_one_idea_first(path: Path) -> None:
    assert ast.get_docstring(parsed(path))


PUBLIC = (ROOT, ROOT / "ray")  # what others import by these names is found when they ask


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.name == "__init__.py" and path.parent not in PUBLIC],
    ids=name_of,
)
def test_a_part_runs_no_code_when_it_is_imported(path: Path) -> None:
    assert len(parsed(path).body) == 1  # its docstring


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent != ROOT / "config"], ids=name_of
)
def test_only_config_reads_the_environment(path: Path) -> None:
    tree = parsed(path)
    of_os = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    }
    imported = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for name in node.names
    }

    assert not {"environ", "environb", "getenv", "getenvb"} & (of_os | imported)


SERVER = ("api/", "server/", "pool/", "config/", "client/")
STATE = ("spaces/", "running.py", "state.py", "hashing.py")
RISKY = {"is_file", "is_dir", "exists", "is_symlink", "read_bytes", "read_text", "iterdir"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if name_of(path).startswith(SERVER + STATE)], ids=name_of
)
def test_what_the_server_looks_at_is_looked_at_by_way_of_files(path: Path) -> None:
    """What `pathlib` has for that raises in a closed folder, and hangs at a pipe."""
    called = {
        node.func.attr
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }

    assert not called & RISKY


MOST_LINES = 400


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_short_enough_to_read_at_once(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


PAGE = (ROOT.parent / "ARCHITECTURE.md").read_text()


def test_the_page_fits_in_a_newcomers_mind() -> None:
    assert len(PAGE.splitlines()) <= 200


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_0-9/]+\.(?:py|yaml))`", PAGE))))
def test_a_file_that_the_page_names_is_there(name: str) -> None:
    part = re.search(rf"^\| `(\w+/)` \|.*`{re.escape(name)}`", PAGE, re.MULTILINE)

    assert (ROOT / (part[1] if part and "/" not in name else "") / name).is_file()


def test_the_page_has_every_part_once() -> None:
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert sorted(re.findall(r"^\| `(\w+)/` \|", PAGE, re.MULTILINE)) == sorted(parts)


def test_the_page_and_the_import_contract_have_the_same_layers() -> None:
    contracts = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [line.replace("emberd.", "") for line in contracts["contracts"][0]["layers"]]

    assert "```\n" + "\n".join(layers) + "\n```" in PAGE
