"""DeBERTa: its buckets of distances, and the variants that are refused, on both backends."""

from pathlib import Path

import numpy as np
import pytest

from emberd.backends.architectures.deberta_v2 import DebertaV2
from emberd.backends.base import Backend
from emberd.backends.config import ModelConfig
from emberd.backends.mlx.backend import MLXBackend
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.errors import ModelLoadError
from tests.backends.references import TINY, change_json, copy_of, load

NAME = "deberta-v2"
BOTH = pytest.mark.parametrize("backend", [OpenVINOBackend(), MLXBackend()], ids=type)


def sizes(folder: Path) -> DebertaV2:
    return DebertaV2.read(ModelConfig(folder / "config.json"))


def test_the_buckets_are_those_of_transformers(tmp_path: Path) -> None:
    folder = copy_of(NAME, tmp_path / NAME)
    change_json(folder / "config.json", max_position_embeddings=512, position_buckets=256)
    # as `make_log_bucket_position(distances, 256, 512)` says, plus 256
    known = {0: 256, 1: 257, -127: 129, 128: 384, 129: 385, 131: 387, 132: 387, -132: 125,
             200: 425, 400: 489, 500: 510, -500: 2, 511: 511, -511: 1, -700: 0}  # fmt: skip
    found = sizes(folder).rows(np.array([*known]))
    assert dict(zip(known, found.tolist(), strict=True)) == known


def test_both_spellings_of_the_kinds_of_attention_are_read(tmp_path: Path) -> None:
    folder = copy_of(NAME, tmp_path / NAME)
    change_json(folder / "config.json", pos_att_type="p2c|c2p")
    assert sizes(folder) == sizes(TINY / NAME)


@BOTH
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conv_kernel_size", 3),
        ("type_vocab_size", 2),
        ("attention_head_size", 8),
        ("embedding_size", 32),
        ("relative_attention", None),
        ("position_biased_input", None),
        ("position_biased_input", True),
        ("norm_rel_ebd", None),
        ("norm_rel_ebd", "none"),
        ("pos_att_type", ["c2p"]),
        ("pos_att_type", None),
        ("share_att_key", None),
        ("position_buckets", None),
        ("position_buckets", -1),
        ("max_relative_positions", 4),
    ],
)
def test_a_variant_is_refused(backend: Backend, key: str, value: object, tmp_path: Path) -> None:
    folder = copy_of(NAME, tmp_path / NAME)
    change_json(folder / "config.json", **{key: value})
    with pytest.raises(ModelLoadError, match=key):
        load(backend, folder, tmp_path, pooling="mean")
