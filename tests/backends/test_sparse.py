"""Sparse models against sentence-transformers' SparseEncoder, on both backends.

The references are made by `tests/reference/make_sparse.py`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd.backends.base import Backend, Compute, Encoder, Precision
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.runtime import capabilities, make_core
from emberd.errors import ModelLoadError
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokenizer, Tokens
from tests.backends.references import change_json
from tests.backends.support import a_request
from tests.reference.encode_real_sizes import peak_above
from tests.sparse_models import FAR, NAMES, SPARSE, dense, reference

ENTRIES, MANY = 150, 30_522  # of the tiny ModernBERT, and of uncased BERT
OPENVINO, MLX = OpenVINOBackend(), MLXBackend()
BOTH = pytest.mark.parametrize("backend", [OPENVINO, MLX], ids=type)


def tokens_of(name: str) -> list[Tokens]:
    given = reference(name)
    return Tokenizer(SPARSE / name, given["max_tokens"]).encode(given["texts"])


def load(backend: Backend, folder: Path, scratch: Path, **options: Any) -> Encoder:  # noqa: ANN401
    wanted = {"pooling": "max", "precision": "f32", "compute": "f32", **options}
    key = f"{folder}-{wanted}".replace("/", "-")
    request = a_request(folder, scratch / "cache", kind="sparse", cache_key=key, **wanted)
    return backend.load(request)


@BOTH
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_sentence_transformers(
    backend: Backend, name: str, tmp_path: Path
) -> None:
    encoder = load(backend, SPARSE / name, tmp_path)
    tokens = tokens_of(name)
    expected = dense(reference(name)["documents"], encoder.dimensions)
    assert any(each.is_cut for each in tokens)
    assert (expected.max(axis=1) > 0).sum() >= len(tokens) - 1
    found = encoder.encode(*pad(tokens))
    assert found == pytest.approx(expected, abs=FAR)
    assert ((found > 0) == (expected > 0)).all()
    for each, row in zip(tokens, expected, strict=True):
        assert encoder.encode(*pad([each])) == pytest.approx(row[None], abs=FAR)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_several_texts(name: str, tmp_path: Path) -> None:
    encoder = load(OPENVINO, SPARSE / name, tmp_path)
    tokens, expected = tokens_of(name), dense(reference(name)["documents"], encoder.dimensions)
    arrays = pad_rows(
        [tokens[3:5], [tokens[0], tokens[3]], [tokens[5]]], reference(name)["max_tokens"]
    )
    assert encoder.encode(*arrays) == pytest.approx(expected[[3, 4, 0, 3, 5]], abs=FAR)


@BOTH
def test_many_parts_of_the_vocabulary(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(backend).__module__.removesuffix(".backend")
    monkeypatch.setattr(f"{module}.sparse.ENTRIES", 40)
    encoder = load(backend, SPARSE / "bert", tmp_path)
    expected = dense(reference("bert")["documents"], encoder.dimensions)
    assert encoder.encode(*pad(tokens_of("bert"))) == pytest.approx(expected, abs=FAR)


@pytest.mark.parametrize("precision", ["4bit", "8bit"])
def test_both_backends_quantize_alike(precision: Precision, tmp_path: Path) -> None:
    arrays = pad(tokens_of("bert"))
    one, other = (
        load(backend, SPARSE / "bert", tmp_path, precision=precision).encode(*arrays)
        for backend in (OPENVINO, MLX)
    )
    assert one == pytest.approx(other, abs=FAR)
    assert abs(one - dense(reference("bert")["documents"], one.shape[1])).max() > 100 * FAR


@BOTH
def test_an_encoder_without_a_head_is_refused(backend: Backend, tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE.parent / "tiny" / "xlm-roberta", tmp_path / "model")
    (folder / "modules.json").unlink()
    with pytest.raises(ModelLoadError, match=r"no lm_head\.dense\.weight") as caught:
        load(backend, folder, tmp_path)
    assert caught.value.hint
    assert "sparse_linear.pt" in caught.value.hint


@BOTH
def test_a_pickled_layer_is_refused(backend: Backend, tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE / "bge-m3", tmp_path / "model")
    (folder / "sparse_linear.safetensors").rename(folder / "sparse_linear.pt")
    with pytest.raises(ModelLoadError, match="pickle") as caught:
        load(backend, folder, tmp_path)
    assert caught.value.hint
    assert "save_file(torch.load('sparse_linear.pt', weights_only=True)" in caught.value.hint


@BOTH
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pooling_strategy": "sum"}, "sum of relu"),
        ({"activation_function": "gelu"}, "max of gelu"),
    ],
)
def test_another_pooling_is_refused(
    backend: Backend, changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(SPARSE / "bert", tmp_path / "model")
    path = folder / "1_SpladePooling" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelLoadError, match=said):
        load(backend, folder, tmp_path)


@BOTH
def test_other_steps_are_refused(backend: Backend, tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE / "bert", tmp_path / "model")
    steps = json.loads((folder / "modules.json").read_text())
    steps[1]["type"] = "sentence_transformers.sparse_encoder.models.SparseAutoEncoder"
    (folder / "modules.json").write_text(json.dumps(steps))
    with pytest.raises(ModelLoadError, match="MLMTransformer > SparseAutoEncoder"):
        load(backend, folder, tmp_path)


@BOTH
def test_an_architecture_without_sparse_models_is_refused(backend: Backend, tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE.parent / "tiny" / "mpnet", tmp_path / "mpnet")
    with pytest.raises(ModelLoadError, match="no sparse models of model_type 'mpnet'"):
        load(backend, folder, tmp_path)


@BOTH
def test_dense_vectors_of_a_sparse_models_folder_are_refused(
    backend: Backend, tmp_path: Path
) -> None:
    request = a_request(SPARSE / "bert", tmp_path / "cache", pooling="mean")
    with pytest.raises(ModelLoadError, match="SpladePooling") as caught:
        backend.load(request)
    assert caught.value.hint
    assert "kind: sparse" in caught.value.hint


@BOTH
def test_numbers_that_overflow_do_not_pass_for_a_vector(backend: Backend, tmp_path: Path) -> None:
    folder = shutil.copytree(SPARSE / "bert", tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.1.output.LayerNorm.weight"] *= 1e38
    save_file(weights, folder / "model.safetensors")
    rows = load(backend, folder, tmp_path).encode(*pad(tokens_of("bert")))
    assert not np.isfinite(rows).any(axis=1).all()


LONG = 1200  # tokens: three blocks


@BOTH
def test_texts_of_several_blocks(backend: Backend, tmp_path: Path) -> None:
    """A text whose tokens are in several blocks has the largest of all of them."""
    folder = shutil.copytree(SPARSE / "modernbert", tmp_path / "model")
    change_json(folder / "config.json", max_position_embeddings=LONG)
    encoder = load(backend, folder, tmp_path)
    token_ids = np.random.default_rng(1).integers(10, 90, (2, LONG), np.int32)
    mask = np.ones_like(token_ids)
    mask[1, 700:] = 0
    both = encoder.encode(token_ids, mask)
    short = encoder.encode(token_ids[1:, :700], mask[1:, :700])
    alone = [encoder.encode(token_ids[:1], mask[:1]), short]
    assert both == pytest.approx(np.concatenate(alone), abs=FAR)
    assert (both > 0).any(axis=1).all()


def many_entries(folder: Path) -> Path:
    """A model with as many entries as uncased BERT has, and little else."""
    shutil.copytree(SPARSE / "modernbert", folder)
    change_json(folder / "config.json", max_position_embeddings=4096, vocab_size=MANY)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if len(tensor) == ENTRIES:
            repeats = -(-MANY // ENTRIES)
            weights[name] = np.concatenate([tensor] * repeats)[:MANY]
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("compute", ["f32", "bf16"])
def test_scores_never_exist_all_at_once(compute: Compute, tmp_path: Path) -> None:
    if compute == "bf16" and "BF16" not in capabilities(make_core()):
        pytest.skip("the processor has no bf16")
    encoder = load(OPENVINO, many_entries(tmp_path / "model"), tmp_path, compute=compute)
    token_ids = np.random.default_rng(1).integers(10, 90, (1, 4096), np.int32)
    encoder.encode(token_ids[:, :512], np.ones((1, 512), np.int32))

    peak = peak_above(lambda: encoder.encode(token_ids, np.ones_like(token_ids)))

    assert peak * 2**20 < 4096 * MANY * 4 / 2
