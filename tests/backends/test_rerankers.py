"""Re-rankers against sentence-transformers' CrossEncoder, on both backends.

The references are made by `tests/reference/make_rerankers.py`.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emberd.backends.base import Backend, Encoder, Precision
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import ModelLoadError, TextTooLongError
from emberd.vectors import Matrix
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokenizer, Tokens
from tests.backends.support import a_request
from tests.rerankers import RERANKERS

NAMES = sorted(path.name for path in RERANKERS.iterdir())
FAR = 1e-4  # of two logits that span 10 in both directions
OPENVINO, MLX = OpenVINOBackend(), MLXBackend()
BOTH = pytest.mark.parametrize("backend", [OPENVINO, MLX], ids=type)


def reference(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RERANKERS / name / "reference.json").read_text())
    return found


def tokens_of(name: str) -> list[Tokens]:
    given = reference(name)
    tokenizer = Tokenizer(RERANKERS / name, given["max_tokens"], pairs=True)
    return tokenizer.encode_pairs(given["query"], given["texts"])


def load(backend: Backend, folder: Path, scratch: Path, **options: Any) -> Encoder:  # noqa: ANN401
    pooling = "mean" if folder.name == "modernbert" else "cls"
    request = a_request(
        folder,
        scratch / "cache",
        kind="rerank",
        cache_key=str(folder),
        **{"pooling": pooling, "precision": "f32", "compute": "f32", **options},
    )
    return backend.load(request)


def logits(encoder: Encoder, *arrays: Any) -> Matrix:  # noqa: ANN401 - arrays of token ids
    rows: Matrix = encoder.encode(*arrays)
    assert rows.shape[1] == 1
    return rows[:, 0]


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_sentence_transformers(
    backend: Backend, name: str, tmp_path: Path
) -> None:
    encoder = load(backend, RERANKERS / name, tmp_path)
    tokens, expected = tokens_of(name), np.array(reference(name)["logits"])
    assert max(abs(expected)) > 9
    assert any(each.is_cut for each in tokens)
    assert logits(encoder, *pad(tokens, pairs=True)) == pytest.approx(expected, abs=FAR)
    for each, logit in zip(tokens, expected, strict=True):
        assert logits(encoder, *pad([each], pairs=True)) == pytest.approx([logit], abs=FAR)
    row = pad_rows([tokens[3:5], [tokens[0]]], reference(name)["max_tokens"], pairs=True)
    assert logits(encoder, *row) == pytest.approx([*expected[3:5], expected[0]], abs=FAR)


@pytest.mark.parametrize("precision", ["4bit", "8bit"])
def test_both_backends_quantize_alike(precision: Precision, tmp_path: Path) -> None:
    arrays = pad(tokens_of("bert"), pairs=True)
    one, other = (
        logits(load(backend, RERANKERS / "bert", tmp_path, precision=precision), *arrays)
        for backend in (OPENVINO, MLX)
    )
    assert one == pytest.approx(other, abs=FAR)


@BOTH
def test_token_types_count(backend: Backend, tmp_path: Path) -> None:
    encoder = load(backend, RERANKERS / "bert", tmp_path)
    token_ids, mask, types = pad(tokens_of("bert"), pairs=True)
    assert types.any()
    moved = logits(encoder, token_ids, mask, np.zeros_like(types))
    assert abs(moved - np.array(reference("bert")["logits"])).max() > 0.1


def changed(name: str, folder: Path, **keys: object) -> Path:
    shutil.copytree(RERANKERS / name, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))
    return folder


@BOTH
def test_another_classifier_is_refused(backend: Backend, tmp_path: Path) -> None:
    folder = changed("bert", tmp_path / "bert", id2label={"0": "no", "1": "yes"})
    with pytest.raises(ModelLoadError, match="2 labels"):
        load(backend, folder, tmp_path)


@BOTH
def test_the_pooling_must_be_the_classifiers(backend: Backend, tmp_path: Path) -> None:
    folder = changed("modernbert", tmp_path / "modernbert", classifier_pooling="cls")
    with pytest.raises(ModelLoadError, match="pooling cls, but the registry says mean"):
        load(backend, folder, tmp_path)


@BOTH
def test_an_architecture_without_rerankers_is_refused(backend: Backend, tmp_path: Path) -> None:
    mpnet = Path(__file__).parents[1] / "reference" / "tiny" / "mpnet"
    folder = shutil.copytree(mpnet, tmp_path / "mpnet")
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(ModelLoadError, match="no re-rankers of model_type 'mpnet'"):
        load(backend, folder, tmp_path)


def test_the_query_is_never_cut() -> None:
    tokenizer = Tokenizer(RERANKERS / "bert", 40, pairs=True)
    [short] = tokenizer.encode_pairs("ok", ["glow " * 5000])
    assert len(short.ids) == 40
    assert short.is_cut
    [shorter] = tokenizer.encode_pairs("ok", ["glow " * 50], most=3)
    assert shorter.ids == [*short.ids[: len(shorter.ids) - 1], short.ids[-1]]
    assert shorter.is_cut
    with pytest.raises(TextTooLongError, match="query"):
        tokenizer.encode_pairs("glow " * 40, ["ok"])
