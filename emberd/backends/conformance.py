"""What every backend must do, as one call that a plugin's own tests can make.

`tiny_bert` makes a checkpoint to call it with, so that nothing has to be downloaded.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from emberd.backends.base import Backend, Encoder, LoadRequest, Pooling, Precision, TokenIds
from emberd.errors import ModelLoadError
from emberd.vectors import Matrix

COSINE = 0.9999
FIRST_ID = 5  # below are a checkpoint's special tokens


def check_backend(
    backend: Backend,
    folder: Path,
    *,
    dimensions: int,
    pooling: Pooling,
    precision: Precision = "f32",
    vocabulary: int = 64,
    max_tokens: int = 32,
) -> None:
    """Load the model in `folder` and hold the backend to every promise of `backends.base`.

    Args:
        backend: what the entry point makes.
        folder: a checkpoint in the layout of a Hub repository, such as `tiny_bert` makes.
        dimensions: the length its vectors must have.
        pooling: passed to `load`.
        precision: passed to `load`.
        vocabulary: how many token ids the checkpoint knows.
        max_tokens: the longest text it takes.

    Raises:
        AssertionError: names the backend and every promise that it breaks.
    """
    draw = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as cache:
        request = LoadRequest(
            folder=folder,
            pooling=pooling,
            precision=precision,
            compute="f32",
            cache=Path(cache),
            cache_key="conformance",
        )
        encoder = backend.load(request)
        lengths = [3, 1, max_tokens, 7]
        texts = [draw.integers(FIRST_ID, vocabulary, length).astype(np.int32) for length in lengths]
        ids, mask = _pad(texts)
        before = ids.copy()
        batch = encoder.encode(ids, mask)
        alone = np.concatenate([encoder.encode(*_pad([text])) for text in texts])
        order = [2, 0, 3, 1]
        shuffled = encoder.encode(*_pad([texts[place] for place in order]))
        more_padding = encoder.encode(*_pad([texts[0]], width=max_tokens))
        again = encoder.encode(ids, mask)
        reloaded = backend.load(request).encode(ids, mask)
        promises = {
            "one row per text": batch.shape == (len(texts), dimensions),
            "dimensions says the length of a vector": encoder.dimensions == dimensions,
            "compute is f32 when f32 is asked for": encoder.compute == "f32",
            "float32": batch.dtype == np.float32,
            "C-contiguous": bool(batch.flags.c_contiguous),
            "finite": bool(np.isfinite(batch).all()),
            "different texts give different vectors": _differ(batch),
            "a text alone is the same as in a batch": _same(alone, batch),
            "order changes nothing": _same(shuffled, batch[order]),
            "padding changes nothing": _same(more_padding, batch[:1]),
            "the same call gives the same vectors": _same(again, batch),
            "an answer stays what it was after the next call": _keeps_answers(encoder, texts),
            "the caller's arrays are left alone": bool((ids == before).all()),
            "loading again gives the same vectors": _same(reloaded, batch),
            "damaged weights are a ModelLoadError": _refuses_damage(backend, request),
        }
    broken = [promise for promise, kept in promises.items() if not kept]
    if broken:
        raise AssertionError(f"{type(backend).__name__} breaks: {'; '.join(broken)}")


def tiny_bert(
    folder: Path, *, hidden_size: int = 64, layers: int = 2, vocabulary: int = 64, seed: int = 1
) -> Path:
    """Make a BERT checkpoint with random weights in `folder` and return it; about 300 kB.

    It takes texts of up to 32 tokens and has `config.json`, `model.safetensors` and a tokenizer
    whose words are `w5`, `w6` and so on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "vocab_size": vocabulary,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden_size,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    draw = np.random.default_rng(seed)
    wide = 2 * hidden_size
    tables = {
        "embeddings.word_embeddings": vocabulary,
        "embeddings.position_embeddings": 32,
        "embeddings.token_type_embeddings": 2,
    }
    tensors = {
        f"{name}.weight": draw.standard_normal((rows, hidden_size)) for name, rows in tables.items()
    }
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}" for number in range(layers)):
        for name, rows, columns in (
            ("attention.self.query", hidden_size, hidden_size),
            ("attention.self.key", hidden_size, hidden_size),
            ("attention.self.value", hidden_size, hidden_size),
            ("attention.output.dense", hidden_size, hidden_size),
            ("intermediate.dense", wide, hidden_size),
            ("output.dense", hidden_size, wide),
        ):
            scale = 2 / np.sqrt(columns)
            tensors[f"{layer}.{name}.weight"] = scale * draw.standard_normal((rows, columns))
            tensors[f"{layer}.{name}.bias"] = 0.1 * draw.standard_normal(rows)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in norms:
        tensors[f"{name}.weight"] = 1 + 0.1 * draw.standard_normal(hidden_size)
        tensors[f"{name}.bias"] = 0.1 * draw.standard_normal(hidden_size)
    save_file(
        {name: tensor.astype(np.float32) for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    _write_tokenizer(folder / "tokenizer.json", vocabulary)
    return folder


def _write_tokenizer(path: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [f"w{number}" for number in range(len(words), vocabulary)]
    ids = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))  # noqa: S106 - no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(path))


def _pad(texts: list[TokenIds], width: int = 0) -> tuple[TokenIds, TokenIds]:
    """Pad on the right: texts -> token ids and mask, both `(B, T)`."""
    width = max(width, *(len(text) for text in texts))
    ids = np.zeros((len(texts), width), np.int32)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    return ids, mask


def _cosines(a: Matrix, b: Matrix) -> Matrix:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: Matrix = (a * b).sum(axis=1) / np.maximum(lengths, 1e-12)
    return cosines


def _same(a: Matrix, b: Matrix) -> bool:
    return a.shape == b.shape and bool((_cosines(a, b) > COSINE).all())


def _differ(batch: Matrix) -> bool:
    return bool((_cosines(batch[:-1], batch[1:]) < COSINE).all())


def _keeps_answers(encoder: Encoder, texts: list[TokenIds]) -> bool:
    first = encoder.encode(*_pad(texts[:1]))
    kept = first.copy()
    encoder.encode(*_pad(texts[1:2]))
    return bool((first == kept).all())


def _refuses_damage(backend: Backend, request: LoadRequest) -> bool:
    """Whether weights cut in half are refused, with a cache that does not know them."""
    with _copied(request.folder) as folder, tempfile.TemporaryDirectory() as cache:
        for weights in folder.glob("*.safetensors"):
            content = weights.read_bytes()
            weights.write_bytes(content[: len(content) // 2])
        damaged = LoadRequest(
            folder=folder,
            pooling=request.pooling,
            precision=request.precision,
            compute=request.compute,
            cache=Path(cache),
            cache_key="damaged",
        )
        try:
            backend.load(damaged)
        except ModelLoadError:
            return True
        return False


@contextmanager
def _copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(shutil.copytree(folder, Path(temporary) / "model"))
