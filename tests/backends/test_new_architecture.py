"""An architecture is one file for each backend, its sizes and one line; nothing else names it."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, normalizers

import emberd
from emberd.backends.architectures import native
from emberd.vectors import Matrix, lowest_cosine
from tests.proposal.folders import described, write
from tests.serving import clean_environ

ROOT = Path(emberd.__file__).parent
MODULES = {line.partition(":")[0] for line in native._NATIVE.values()}
NAMES = {*native._NATIVE, *MODULES} - {"new"}  # `new` is also a word
IN_ITS_OWN_FILES = [ROOT / "backends/architectures"] + [
    ROOT / "backends" / backend / f"{module}.py"
    for backend in ("openvino", "mlx")
    for module in MODULES
]
ALLOWED = {ROOT / "backends/tiny_bert.py"}  # a BERT for tests

SIZES = '''"""The sizes of Lantern."""

from dataclasses import dataclass
from typing import ClassVar, Self

from emberd.backends.architectures.base import Architecture
from emberd.backends.config import ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Lantern(Architecture):
    """The vectors of a token and its position."""

    tokenizer_class: ClassVar[str] = "BertTokenizer"
    usual_positions: ClassVar[int | None] = 22

    @classmethod
    def padding(cls, config: ModelConfig) -> object:
        return 1

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        return cls(
            model_type="lantern",
            vocab_size=config.size("vocab_size"),
            hidden_size=config.size("hidden_size"),
            max_tokens=cls.positions(config) or 0,
            padding_id=1,
        )
'''
OPENVINO = '''"""Lantern as OpenVINO operations."""

from openvino import opset15 as op


def encode(sizes, weights, batch):
    words = weights.look_up(batch.token_ids, "words", sizes.vocab_size, sizes.hidden_size)
    places = weights.look_up(batch.positions, "places", 22, sizes.hidden_size)
    return op.add(words, places)
'''
MLX = '''"""Lantern in MLX."""


class Encoder:
    def __init__(self, sizes, weights):
        self.words = weights.embedding("words", sizes.vocab_size, sizes.hidden_size)
        self.places = weights.embedding("places", 22, sizes.hidden_size)

    def __call__(self, batch):
        return self.words.rows(batch.token_ids) + self.places.rows(batch.positions)
'''


def constants(path: Path) -> Iterator[str]:
    """The texts in a file that are not documentation, and the modules that it imports from."""
    tree = ast.parse(path.read_text())
    told = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emberd.backends"):
            yield str(node.module).rpartition(".")[2]


def test_no_other_file_names_an_architecture() -> None:
    others = [
        path
        for path in sorted(ROOT.rglob("*.py"))
        if path not in ALLOWED and not {path, *path.parents} & set(IN_ITS_OWN_FILES)
    ]

    named = {str(path): NAMES.intersection(constants(path)) for path in others}
    assert len(named) > 200
    assert {path: found for path, found in named.items() if found} == {}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of emberd to which somebody has added an architecture as ARCHITECTURE.md says."""
    copy = tmp_path / "source"
    shutil.copytree(ROOT, copy / "emberd", ignore=shutil.ignore_patterns("__pycache__"))
    backends = copy / "emberd/backends"
    (backends / "architectures/lantern.py").write_text(SIZES)
    (backends / "openvino/lantern.py").write_text(OPENVINO)
    (backends / "mlx/lantern.py").write_text(MLX)
    lines = (backends / "architectures/native.py").read_text()
    added = lines.replace('    "gte":', '    "lantern": "lantern:Lantern",\n    "gte":', 1)
    assert added != lines
    (backends / "architectures/native.py").write_text(added)
    return copy


@pytest.fixture
def weights() -> Mapping[str, Matrix]:
    draw = np.random.default_rng(3)
    return {
        "words.weight": draw.normal(size=(96, 64)).astype(np.float32),
        "places.weight": draw.normal(size=(22, 64)).astype(np.float32),
    }


@pytest.fixture
def folder(tmp_path: Path, weights: Mapping[str, Matrix]) -> Path:
    """A model of it, which only says what it must."""
    folder = described(tmp_path / "lamp")
    (folder / "sentence_bert_config.json").unlink()
    save_file(dict(weights), folder / "model.safetensors")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {"model_type": "lantern", "hidden_size": 64, "vocab_size": 96}
    return write(folder, {"config.json": sizes, "tokenizer_config.json": {"do_lower_case": True}})


def test_one_that_is_added_as_the_page_says_is_added_pulled_verified_and_right(
    source: Path, folder: Path, weights: Mapping[str, Matrix], home: Path
) -> None:
    def run(*arguments: str) -> bytes:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "emberd", *arguments],
            env={**clean_environ(home), "PYTHONPATH": str(source)},
            cwd=source,
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    added = json.loads(run("add", str(folder), "--yes", "--json"))
    assert added["entry"]["max_tokens"] == 20  # its usual ones, without those up to the padding's
    assert added["entry"]["architecture"] == "lantern"
    entry = f"{{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean, backend: mlx}}"
    with (home / "config.yaml").open("a") as config:
        config.write(f"  on-mlx: {entry}\n")

    told = [run("embed", "the Bird", "a cat eats", "--model", name) for name in ("lamp", "on-mlx")]

    words, places = weights["words.weight"], weights["places.weight"]
    ids = ([2, 10, 5, 3], [2, 4, 6, 8, 3])  # lower case, as transformers' BertTokenizer
    means = [words[each].mean(0) + places[2 : 2 + len(each)].mean(0) for each in ids]
    expected = np.array([mean / np.linalg.norm(mean) for mean in means], np.float32)
    for lines in told:
        vectors = np.array([json.loads(line)["embedding"] for line in lines.splitlines()])
        assert lowest_cosine(vectors.astype(np.float32), expected) > 0.9999
