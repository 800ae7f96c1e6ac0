"""Checks everything that a backend must do, in one call for the tests of a plugin.

folder = tmp_path / "model"
tiny_bert(folder)
check_backend(MyBackend(), folder, dimensions=TINY_DIMENSIONS, pooling="mean")

`tiny_bert` is in a module of its own; it has `tiny_reranker`, too.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from emberd.backends.base import (
    Backend,
    Encoder,
    Kind,
    LoadRequest,
    Pooling,
    Precision,
    TokenIds,
)
from emberd.backends.conformance_inputs import Inputs
from emberd.backends.plugins import architectures, kinds
from emberd.errors import ModelLoadError
from emberd.registry.spec import POOLINGS
from emberd.vectors import Matrix

Promises = dict[str, Callable[[], bool]]


def check_backend(
    backend: Backend,
    folder: Path,
    *,
    dimensions: int,
    pooling: Pooling,
    precision: Precision = "f32",
    max_tokens: int | None = None,
    kind: Kind = "embed",
) -> None:
    """Load the model in `folder` in every way that matters, and run it.

    `kind` sparse: pooling is `max`, and `dimensions` the size of the vocabulary; `tiny_bert` writes
    such a model with `masked_lm=True`. `kind` rerank: `dimensions` is 1, for the logit, and token
    types are given, too; `tiny_reranker` writes one.

    `folder` must have a `config.json` with `vocab_size` and, unless `max_tokens` gives the longest
    text, `max_position_embeddings`. It is not written to. For an encoder with `devices`, `backend`
    goes to other processes, so its class has to be importable there, not local to a function.

    Raises:
        AssertionError: names every requirement that the backend does not meet.
    """
    with tempfile.TemporaryDirectory() as scratch:
        request = LoadRequest(
            folder=folder,
            kind=kind,
            pooling=pooling,
            precision=precision,
            compute="auto",
            cache=Path(scratch, "cache"),
            cache_key="conformance",
        )
        encoder = backend.load(request)
        texts = Inputs(folder, max_tokens, kind)
        promises = (
            _about_the_encoder(backend, encoder, dimensions)
            | _about_architectures(backend, folder)
            | _about_vectors(encoder, texts, dimensions)
            | _about_rows_of_texts(encoder, texts)
            | _about_chunks(encoder, texts)
            | _about_loading_again(backend, request, encoder, texts)
            | _about_devices(backend, request, encoder, texts)
            | _about_pooling(backend, request, encoder, texts)
            | _about_kinds(backend, request, encoder, texts)
            | _about_unusable_files(backend, request, Path(scratch))
        )
        broken = [
            f"{promise}{flaw}"
            for promise, kept in promises.items()
            if (flaw := _flaw(kept)) is not None
        ]
    if broken:
        raise AssertionError(f"{type(backend).__name__} does not meet: {'; '.join(broken)}.")


def _about_the_encoder(backend: Backend, encoder: Encoder, dimensions: int) -> Promises:
    return {
        "`files` is a tuple of glob patterns": lambda: _are_names(backend.files),
        "`libraries` is a tuple of distribution names": lambda: _are_names(backend.libraries),
        f"`dimensions` is {dimensions}": lambda: encoder.dimensions == dimensions,
        "`compute` is f32, bf16 or f16": lambda: encoder.compute in ("f32", "bf16", "f16"),
    }


def _about_architectures(backend: Backend, folder: Path) -> Promises:
    stated = architectures(backend)
    if not stated:
        return {}
    config = json.loads(folder.joinpath("config.json").read_text())
    return {
        "`architectures` is a frozenset of `model_type`s": lambda: _are_names(tuple(stated)),
        "`architectures` includes the model's": lambda: config["model_type"] in stated,
    }


def _about_vectors(encoder: Encoder, texts: Inputs, dimensions: int) -> Promises:
    long, medium, short, one_token = texts.long, texts.medium, texts.short, texts.one_token

    def encode(*rows: list[int], filler: int = 0) -> Matrix:
        return encoder.encode(*texts.batch(*rows, filler=filler))

    def inputs_stay() -> bool:
        arrays = texts.batch(short, medium)
        before = [each.copy() for each in arrays]
        encoder.encode(*arrays)
        return all(map(np.array_equal, arrays, before))

    def results_stay() -> bool:
        result = encode(short, medium)
        before = result.copy()
        encode(medium, short)
        return np.array_equal(result, before)

    def read_only() -> bool:
        arrays = texts.batch(short, medium)
        for each in arrays:
            each.flags.writeable = False
        return texts.same(encoder.encode(*arrays), encode(short, medium))

    return {
        "one row per text": lambda: encode(short, medium).shape == (2, dimensions),
        "a batch of one": lambda: encode(short).shape == (1, dimensions),
        "a text of one token": lambda: _usable(encode(one_token)),
        "the longest text": lambda: _usable(encode(long)),
        "float32": lambda: encode(short).dtype == np.float32,
        "C-contiguous": lambda: encode(short, medium).flags.c_contiguous,
        "finite, and not zero": lambda: _usable(encode(short, medium, long)),
        "different texts get different vectors": lambda: (
            not texts.same(encode(short), encode(medium))
            and not texts.same(encode(short), encode(long))
        ),
        "padding and neighbours change nothing": lambda: texts.same(
            np.concatenate([encode(short), encode(medium), encode(long)]),
            encode(short, medium, long),
        ),
        "what the padding is filled with changes nothing": lambda: texts.same(
            encode(short, medium), encode(short, medium, filler=-1)
        ),
        "order changes nothing": lambda: texts.same(
            encode(short, medium, long), encode(long, medium, short)[::-1]
        ),
        "the same call twice gives the same vectors": lambda: texts.same(
            encode(short, medium), encode(short, medium)
        ),
        "token ids and mask are not changed": inputs_stay,
        "read-only token ids and mask are accepted": read_only,
        "a result does not change when the next batch runs": results_stay,
    }


def _about_rows_of_texts(encoder: Encoder, texts: Inputs) -> Promises:
    """What an encoder that `packs` must do; see `base.Encoder`."""
    if not getattr(encoder, "packs", False):
        return {}
    medium, short, one_token = texts.medium, texts.short, texts.one_token

    def encode(*rows: list[list[int]], filler: int = 0) -> Matrix:
        return encoder.encode(*texts.packed(*rows, filler=filler))

    def alone(*rows: list[list[int]]) -> Matrix:
        return np.concatenate([encoder.encode(*texts.batch(text)) for row in rows for text in row])

    mixed = [[short, medium, one_token], [medium], [one_token, one_token, short]]
    return {
        "a text packed with others has the same vector as alone": lambda: texts.same(
            encode(*mixed), alone(*mixed)
        ),
        "what a packed row is padded with changes nothing": lambda: texts.same(
            encode(*mixed), encode(*mixed, filler=-1)
        ),
        "a text packed twice in a row has the same vector twice": lambda: texts.same(
            encode([short, short]), alone([short, short])
        ),
    }


def _about_chunks(encoder: Encoder, texts: Inputs) -> Promises:
    """What an encoder that `pools_chunks` must do; see `base.Encoder`."""
    if not getattr(encoder, "pools_chunks", False):
        return {}
    batch, end = texts.batch(texts.medium), len(texts.medium)
    chunks = [(0, end), (1, end), (1, 2), (0, 1)]

    def encode(*chunks: tuple[int, int]) -> Matrix:
        made: Matrix = encoder.encode(*batch, chunks=np.array(chunks, np.int32))  # type: ignore[call-arg]
        return made

    return {
        "a chunk that is the whole text has its vector": lambda: texts.same(
            encode(chunks[0]), encoder.encode(*batch)
        ),
        "a chunk has the same vector beside others, with which it shares tokens": lambda: (
            texts.same(encode(*chunks), np.concatenate([encode(each) for each in chunks]))
        ),
    }


def _about_loading_again(
    backend: Backend, request: LoadRequest, encoder: Encoder, texts: Inputs
) -> Promises:
    batch = texts.batch(texts.short, texts.medium)

    def again() -> bool:
        return texts.same(encoder.encode(*batch), backend.load(request).encode(*batch))

    def with_damaged_cache() -> bool:
        for path in request.cache.rglob("*"):
            if path.is_file():
                _cut_in_half(path)
        return again()

    def with_deleted_cache() -> bool:
        shutil.rmtree(request.cache, ignore_errors=True)
        return again()

    return {
        "a second load, from the cache of the first, gives the same vectors": again,
        "a damaged cache does no harm": with_damaged_cache,
        "a deleted cache does no harm": with_deleted_cache,
    }


def _about_devices(
    backend: Backend, request: LoadRequest, encoder: Encoder, texts: Inputs
) -> Promises:
    devices: Sequence[str] = getattr(encoder, "devices", ())
    if not devices:
        return {}
    batch = texts.batch(texts.short, texts.medium)

    def on_each() -> bool:
        here = encoder.encode(*batch)
        requests = (replace(request, device=device) for device in devices)
        return all(texts.same(here, _elsewhere(backend, request, *batch)) for request in requests)

    return {
        "`devices` are different names": lambda: (
            _are_names(tuple(devices)) and len({*devices}) == len(devices)
        ),
        "every one of `devices` gives the same vectors": on_each,
    }


def _elsewhere(backend: Backend, request: LoadRequest, *arrays: TokenIds) -> Matrix:
    """Load and encode in a process of its own, as a library may choose its device only once."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_encode, backend, request, *arrays).result()


def _encode(backend: Backend, request: LoadRequest, *arrays: TokenIds) -> Matrix:
    return backend.load(request).encode(*arrays)


def _about_pooling(
    backend: Backend, request: LoadRequest, encoder: Encoder, texts: Inputs
) -> Promises:
    batch = texts.batch(texts.short, texts.medium)

    def another_pooling() -> bool:
        if any(request.folder.glob("*_Pooling")) or request.kind != "embed":
            return True  # the folder or the kind states its pooling, and no other loads
        for pooling in {*POOLINGS} - {request.pooling}:
            try:
                other = backend.load(replace(request, pooling=pooling, cache_key=pooling))
            except ModelLoadError:
                continue
            if texts.same(encoder.encode(*batch), other.encode(*batch)):
                return False
        return True

    return {"another pooling gives other vectors, or ModelLoadError": another_pooling}


def _about_kinds(
    backend: Backend, request: LoadRequest, encoder: Encoder, texts: Inputs
) -> Promises:
    promises: Promises = {f"`kinds` has {request.kind}": lambda: request.kind in kinds(backend)}
    if request.kind == "sparse":
        batch = texts.batch(texts.short, texts.long)
        promises["no number is negative"] = lambda: bool((encoder.encode(*batch) >= 0).all())
    if request.kind == "rerank":
        promises |= _about_rerankers(backend, request, encoder, texts)
    return promises


def _about_rerankers(
    backend: Backend, request: LoadRequest, encoder: Encoder, texts: Inputs
) -> Promises:
    def types_count() -> bool:
        token_ids, mask, types = texts.batch(texts.medium)
        both = [encoder.encode(token_ids, mask, each) for each in (types, np.zeros_like(types))]  # type: ignore[call-arg]
        return not texts.same(*both)

    def several_labels() -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            folder = shutil.copytree(request.folder, Path(scratch, "copy"))
            path = folder / "config.json"
            labels = {"id2label": {"0": "no", "1": "yes"}, "num_labels": 2}
            path.write_text(json.dumps(json.loads(path.read_text()) | labels))
            return _refused(backend, replace(request, folder=folder, cache_key="labels"))

    return {
        "the token types of a pair count": types_count,
        "a classifier with several labels raises ModelLoadError": several_labels,
    }


def _refused(backend: Backend, request: LoadRequest) -> bool:
    try:
        backend.load(request)
    except ModelLoadError:
        return True
    return False


def _about_unusable_files(backend: Backend, request: LoadRequest, scratch: Path) -> Promises:
    @contextmanager
    def copy() -> Iterator[Path]:
        folder = scratch / "copy"
        shutil.copytree(request.folder, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def refused(folder: Path) -> bool:
        changed = replace(request, folder=folder, cache_key=f"{request.cache_key}-changed")
        return _refused(backend, changed)

    def largest_file_cut() -> bool:
        with copy() as folder:
            _cut_in_half(max(folder.rglob("*"), key=lambda path: path.stat().st_size))
            return refused(folder)

    def another_architecture() -> bool:
        with copy() as folder:
            path = folder / "config.json"
            config = json.loads(path.read_text()) | {"model_type": "no-such-architecture"}
            path.write_text(json.dumps(config))
            return refused(folder)

    promises = {
        "a missing folder raises ModelLoadError": lambda: refused(scratch / "nothing"),
        "a file cut in half raises ModelLoadError": largest_file_cut,
    }
    if not getattr(backend, "any_architecture", False):
        promises["an unknown model_type raises ModelLoadError"] = another_architecture
    return promises


def _flaw(kept: Callable[[], bool]) -> str | None:
    """Return None if the requirement is met, else what to add to its name."""
    try:
        return None if kept() else ""
    except Exception as error:  # noqa: BLE001 - whatever a backend raises is its flaw
        return f" ({type(error).__name__}: {error})"


def _are_names(value: object) -> bool:
    """Say whether it is a tuple of strings, and not a single string."""
    return isinstance(value, tuple) and len(value) > 0 and {type(name) for name in value} == {str}


def _usable(vectors: Matrix) -> bool:
    return bool(np.isfinite(vectors).all() and (np.abs(vectors).max(axis=1) > 0).all())


def _cut_in_half(path: Path) -> None:
    """Leave half of a file; in a new one, as somebody may have mapped the old one."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
