"""Static models: the mean of the tokens' vectors, whatever tensors a checkpoint has for them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd.backends.base import Backend, Precision, TokenIds
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import ModelLoadError
from emberd.folder.reading import read_folder
from emberd.vectors import Matrix
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer
from tests.backends.references import TINY, batch_of, copy_of, vectors_of
from tests.backends.support import a_request
from tests.cosines import cosines

OPENVINO, MLX = OpenVINOBackend(), MLXBackend()
BOTH = pytest.mark.parametrize("backend", [OPENVINO, MLX], ids=type)
TEXTS = np.array([[5, 6, 7], [8, 0, 0]], np.int32), np.array([[1, 1, 1], [1, 0, 0]], np.int32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny model, whose folder a test may change."""
    return copy_of("model2vec", tmp_path / "model2vec")


def encode(
    backend: Backend,
    folder: Path,
    token_ids: TokenIds,
    mask: TokenIds,
    *,
    precision: Precision = "f32",
) -> Matrix:
    request = a_request(folder, folder.parent / "cache", precision=precision, compute="f32")
    return backend.load(request).encode(token_ids, mask)


@BOTH
@pytest.mark.parametrize("name", ["embeddings", "embedding.weight"])
@pytest.mark.parametrize("without", [(), ("mapping",), ("weights",), ("mapping", "weights")])
def test_a_text_is_the_mean_of_its_tokens(
    backend: Backend, name: str, without: tuple[str, ...], folder: Path
) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors.pop("embeddings")
    for left_out in without:
        del tensors[left_out]
    by_token = tensors[name][tensors["mapping"]] if "mapping" in tensors else tensors[name]
    if "weights" in tensors:
        by_token = by_token * tensors["weights"][: len(by_token), None]
    if "mapping" in without and "weights" in tensors:
        tensors["weights"] = tensors["weights"][: len(by_token)].copy()
    save_file(tensors, folder / "model.safetensors")

    vectors = encode(backend, folder, *TEXTS)

    expected = [by_token[[5, 6, 7]].mean(axis=0), by_token[8]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)


@BOTH
def test_from_the_text_on_the_vectors_are_those_of_sentence_transformers(
    backend: Backend, folder: Path
) -> None:
    record = json.loads((TINY / "model2vec" / "reference.json").read_text())
    texts = [each["text"] for each in record["texts"]]
    tokenizer = Tokenizer(folder, 512, only_known=read_folder(folder).only_known)

    vectors = encode(backend, folder, *pad(tokenizer.encode(texts)))

    assert cosines(vectors, vectors_of("model2vec", "mean")).min() > 0.99999


def test_narrow_weights_make_one_space_on_both_backends(folder: Path) -> None:
    for precision in ("bf16", "8bit", "4bit"):
        ours, theirs = (
            encode(backend, folder, *batch_of("model2vec"), precision=precision)
            for backend in (OPENVINO, MLX)
        )

        assert cosines(ours, theirs).min() > 0.99999
        assert 0.5 < cosines(ours, vectors_of("model2vec", "mean")).min() < 1


def test_a_table_of_float64_is_read(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"weights": tensors["weights"].astype(np.float64)}, folder / "model.safetensors"
    )

    vectors = encode(OPENVINO, folder, *batch_of("model2vec"))

    np.testing.assert_allclose(vectors, vectors_of("model2vec", "mean"), atol=1e-5)


@BOTH
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embeddings": None}, r"no table of vectors.* it has mapping, weights"),
        (
            {"embeddings": np.zeros((105, 64), np.int8), "mapping": None},
            "embeddings is I8, not F64, F32",
        ),
        ({"mapping": np.full(105, 999)}, r"mapping has numbers outside the table's \d+ rows"),
        ({"mapping": np.full(105, -1)}, r"mapping has numbers outside the table's \d+ rows"),
        ({"mapping": np.zeros(105, np.float32)}, "mapping is F32, not I32 or I64"),
        ({"weights": np.zeros(7, np.float32)}, r"weights has shape \(7,\)"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(
    backend: Backend, change: dict[str, Matrix | None], named: str, folder: Path
) -> None:
    tensors = load_file(folder / "model.safetensors") | change
    kept = {name: array for name, array in tensors.items() if array is not None}
    save_file(kept, folder / "model.safetensors")

    with pytest.raises(ModelLoadError, match=named):
        encode(backend, folder, *TEXTS)


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelLoadError, match=r"model\.safetensors cannot be read"):
        encode(OPENVINO, folder, *TEXTS)


def test_another_pooling_than_the_mean_is_refused(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"modules\.json says pooling mean.* cls"):
        OPENVINO.load(a_request(folder, folder.parent / "cache", pooling="cls"))


def test_a_table_in_a_subfolder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(TINY / "model2vec", tmp_path / "0_StaticEmbedding")
    steps = [{"type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding"}]
    (tmp_path / "modules.json").write_text(json.dumps(steps))

    with pytest.raises(ModelLoadError, match="token vectors in 0_StaticEmbedding") as caught:
        read_folder(tmp_path)

    assert '{"model_type": "model2vec"}' in (caught.value.hint or "")
