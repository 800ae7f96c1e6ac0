"""Models run with mlx-embeddings' layers give transformers' vectors, even where its own differ."""

import json
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from emberd.backends.architectures.native import NATIVE
from emberd.backends.base import Compute, Encoder, Pooling, Precision
from emberd.backends.conformance import check_backend
from emberd.backends.mlx.backend import MLXBackend, _choose_compute
from emberd.backends.mlx.families import visible
from emberd.errors import BackendBrokenError, ModelLoadError
from emberd.vectors import Matrix
from tests.backends.references import (
    PACKED,
    TINY,
    batch_of,
    change_json,
    copy_of,
    pack,
    padded_left,
    vectors_of,
)
from tests.backends.support import a_request
from tests.cosines import cosines

STATED: dict[str, Pooling] = {"llama_bidirec": "mean"}
COMPUTE: list[Compute] = ["f16", "bf16"]
OTHERS = pytest.mark.parametrize("name", list(STATED))


def load(
    folder: Path,
    scratch: Path,
    *,
    pooling: Pooling | None = None,
    precision: Precision = "f32",
    compute: Compute = "f32",
) -> Encoder:
    """Load a checkpoint with the pooling of its family, unless it states another."""
    pooling = pooling or STATED[folder.name]
    return MLXBackend().load(
        a_request(folder, scratch, pooling=pooling, precision=precision, compute=compute)
    )


def encode(
    folder: Path,
    scratch: Path,
    *,
    pooling: Pooling | None = None,
    precision: Precision = "f32",
    compute: Compute = "f32",
) -> Matrix:
    encoder = load(folder, scratch, pooling=pooling, precision=precision, compute=compute)
    return encoder.encode(*batch_of(folder.name))


def test_every_architecture_beyond_our_own_is_tested_here() -> None:
    assert MLXBackend.architectures - NATIVE == set(STATED)


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("llama_bidirec", "mean"),
        ("llama_bidirec", "cls"),
        ("llama_bidirec", "last"),
    ],
)
def test_the_vectors_are_those_of_transformers_with_every_pooling(
    name: str, pooling: Pooling, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name, pooling=pooling)

    vectors = encode(folder, tmp_path, pooling=pooling)

    assert cosines(vectors, vectors_of(name, pooling)).min() > 0.99999
    np.testing.assert_allclose(vectors, vectors_of(name, pooling), atol=1e-4)


@OTHERS
def test_every_promise_of_a_backend_is_kept(name: str) -> None:
    check_backend(MLXBackend(), TINY / name, dimensions=64, pooling=STATED[name], max_tokens=40)


@OTHERS
@pytest.mark.parametrize("compute", COMPUTE)
def test_half_the_digits_give_no_nan_in_a_padded_batch(
    name: str, compute: Compute, tmp_path: Path
) -> None:
    vectors = encode(TINY / name, tmp_path, compute=compute)

    assert np.isfinite(vectors).all()
    assert cosines(vectors, vectors_of(name, STATED[name])).min() > 0.999


@pytest.mark.slow
@OTHERS
def test_quantized_weights_can_do_with_half_the_digits(name: str, tmp_path: Path) -> None:
    exact = encode(TINY / name, tmp_path, precision="4bit")

    for compute in COMPUTE:
        fast = encode(TINY / name, tmp_path, precision="4bit", compute=compute)
        assert cosines(fast, exact).min() > 0.999


def test_no_token_of_a_padded_text_sees_nothing() -> None:
    mask = mx.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 1, 1]])

    seen = np.array(visible(mask))

    assert seen.shape == (3, 1, 5, 5)
    assert seen.any(axis=-1).all()
    only = np.arange(5) == 0
    assert seen[1, 0].tolist() == (np.eye(5, dtype=bool) | only).tolist()


@pytest.mark.parametrize(
    ("precision", "on_gpu", "takes_f16", "chosen"),
    [
        ("f32", True, True, "f32"),
        ("bf16", True, True, "bf16"),
        ("4bit", True, True, "f16"),
        ("4bit", True, False, "bf16"),
        ("4bit", False, True, "f32"),
    ],
)
def test_auto_spares_large_numbers_the_small_range_of_f16(
    precision: Precision, on_gpu: bool, takes_f16: bool, chosen: str, tmp_path: Path
) -> None:
    request = a_request(tmp_path, tmp_path, precision=precision)

    assert _choose_compute(request, on_gpu=on_gpu, takes_f16=takes_f16) == chosen


@pytest.mark.parametrize("compute", ["f32", "f16"])
@OTHERS
def test_padding_on_the_left_changes_nothing(name: str, compute: Compute, tmp_path: Path) -> None:
    encoder = load(TINY / name, tmp_path, compute=compute)

    vectors = encoder.encode(*padded_left(*batch_of(name)))

    reference = vectors_of(name, STATED[name])
    assert cosines(vectors, reference).min() > (0.99999 if compute == "f32" else 0.999)


@OTHERS
@PACKED
def test_packed_weights_make_the_space_of_full_ones(
    name: str, prefix: str, precision: Precision, bits: int, tmp_path: Path
) -> None:
    packed = copy_of(name, tmp_path / name)
    pack(packed, bits, prefix=prefix)

    ours, theirs = (
        encode(folder, tmp_path, precision=precision) for folder in (TINY / name, packed)
    )

    assert cosines(ours, theirs).min() > 0.99999
    lowest = cosines(ours, vectors_of(name, STATED[name])).min()
    assert lowest > 0.99 if bits == 8 else 0.3 < lowest < 0.999


@pytest.mark.skipif(mx.cuda.is_available(), reason="CUDA is slow with packed weights")
@OTHERS
def test_a_quantized_model_stays_packed_in_memory(name: str, tmp_path: Path) -> None:
    def bytes_of(precision: Precision) -> int:
        before = mx.get_active_memory()
        encoder = load(TINY / name, tmp_path, precision=precision)
        assert encoder.dimensions == 64
        return int(mx.get_active_memory() - before)

    assert bytes_of("4bit") < 0.4 * bytes_of("f32")


@OTHERS
def test_a_config_as_transformers_5_writes_it_means_the_same(name: str, tmp_path: Path) -> None:
    folder = copy_of(name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": config["rope_theta"]} | config["rope_scaling"]
    change_json(folder / "config.json", rope_parameters=rope, rope_scaling=None, rope_theta=None)

    vectors = encode(folder, tmp_path)

    assert cosines(vectors, vectors_of(name, STATED[name])).min() > 0.99999


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("llama_bidirec", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("llama_bidirec", {"rope_parameters": [1]}, r"`rope_parameters` .*\[1\]"),
        ("llama_bidirec", {"intermediate_size": "wide"}, "mlx-embeddings .*llama_bidirec"),
        ("llama_bidirec", {"hidden_size": 128}, r"embed_tokens\.weight has shape"),
    ],
)
def test_what_mlx_embeddings_would_read_past_is_refused(
    name: str, changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    folder = copy_of(name, tmp_path / name)
    change_json(folder / "config.json", **changes)

    with pytest.raises(ModelLoadError, match=named):
        load(folder, tmp_path)


@OTHERS
def test_a_pooling_that_the_checkpoint_contradicts_is_refused_with_both_named(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=f"says pooling {STATED[name]}.* cls"):
        load(TINY / name, tmp_path, pooling="cls")


def test_an_architecture_that_nothing_runs_is_named(tmp_path: Path) -> None:
    folder = copy_of("llama_bidirec", tmp_path / "llama_bidirec")
    change_json(folder / "config.json", model_type="lfm2")

    with pytest.raises(
        ModelLoadError,
        match=r"'lfm2'.* mlx .*bert, deberta-v2, distilbert, gemma3_text, gte, jina_bert, llama",
    ):
        load(folder, tmp_path)


def test_nothing_heavy_is_imported() -> None:
    code = """
import sys
from pathlib import Path
from emberd.backends.base import LoadRequest
from emberd.backends.mlx.backend import MLXBackend
for folder, pooling in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    MLXBackend().load(LoadRequest(
        folder=Path(folder), pooling=pooling, precision="f32", compute="auto",
        cache=Path(), cache_key=""))
heavy = {"transformers", "torch", "mlx_vlm", "cv2", "mlx_embeddings.utils", "mlx_lm.utils"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""

    models = [text for name, pooling in STATED.items() for text in (str(TINY / name), pooling)]
    subprocess.run([sys.executable, "-c", code, *models], check=True)


@pytest.mark.parametrize("absent", ["mlx_embeddings", "mlx_lm"])
def test_what_is_not_installed_is_named_with_what_needs_it(
    absent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.startswith(("mlx_emb", "mlx_lm"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, absent, None)

    with pytest.raises(BackendBrokenError, match=f"^llama_bidirec .*mlx-emb.*{absent}") as e:
        load(TINY / "llama_bidirec", tmp_path)

    assert "pip install mlx-embeddings mlx-lm`" in (e.value.hint or "")
