"""Damaged model files: a clear error or a model, never a crash, a hang or another kind of error.

How hard they are tried: `EMBERD_FUZZ_CASES`, 300 each by default.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emberd.backends.architecture import NATIVE, Bert, read_architecture
from emberd.backends.base import LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.errors import EmberdError
from emberd.worker.tokenizer import Tokenizer, limit_of_checkpoint

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
CASES = int(os.environ.get("EMBERD_FUZZ_CASES", "300"))
MANY = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Of numbers that are none: the worker looks at what comes out, not at what goes in.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Damage = Callable[[bytes], bytes]


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    """Return a function that damages the content of a file."""
    kind = draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "number"]))
    place = draw(st.floats(0, 1))
    junk = draw(st.binary(min_size=1, max_size=12))
    number = draw(st.sampled_from([0, 1, -1, 2**31, 2**62, -(2**63), 10**30]))

    def damage(content: bytes) -> bytes:
        at = int(place * max(0, len(content) - 1))
        match kind:
            case "flip":
                flipped = content[at] ^ (junk[0] or 1)
                return content[:at] + bytes([flipped]) + content[at + 1 :]
            case "cut":
                return content[:at]
            case "insert":
                return content[:at] + junk + content[at:]
            case "overwrite":
                return content[:at] + junk + content[at + len(junk) :]
            case _:  # the next number of a JSON header becomes another one
                start = next(
                    (i for i in range(at, len(content)) if content[i : i + 1].isdigit()), 0
                )
                end = start
                while content[end : end + 1].isdigit():
                    end += 1
                return content[:start] + str(number).encode() + content[end:]

    return damage


@contextmanager
def damaged(name: str, damage: Damage) -> Iterator[Path]:
    """Give a copy of the tiny BERT with one damaged file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(TINY, Path(folder) / "model"))
        (copy / name).write_bytes(damage((copy / name).read_bytes()))
        yield copy


def read_all(folder: Path) -> None:
    """Read what a backend reads to build a model; raise `EmberdError` or nothing."""
    request = LoadRequest(
        folder=folder, pooling="mean", precision="8bit", compute="f32",
        cache=folder / "cache", cache_key="k",
    )  # fmt: skip
    checkpoint = Checkpoint(request, applies_heads=True)
    architecture = read_architecture(checkpoint.config, backend="openvino", runs=NATIVE)
    assert isinstance(architecture, Bert)
    size, wide = architecture.hidden_size, architecture.intermediate_size
    checkpoint.dimensions(size)
    checkpoint.dense_matrix("embeddings.word_embeddings.weight", architecture.vocab_size, size)
    for layer in range(architecture.num_hidden_layers):
        checkpoint.dense_matrix(f"encoder.layer.{layer}.intermediate.dense.weight", wide, size)
        checkpoint.vector(f"encoder.layer.{layer}.output.LayerNorm.weight", size)


def said(error: EmberdError, *either: str) -> None:
    """Check that an error names one of these."""
    assert any(name in error.message for name in either), error.message


@MANY
@given(damages())
def test_damaged_weights(damage: Damage) -> None:
    with damaged("model.safetensors", damage) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "model")


@MANY
@given(damages())
def test_a_damaged_config(damage: Damage) -> None:
    with damaged("config.json", damage) as folder:
        try:
            limit_of_checkpoint(folder)
            read_all(folder)
        except EmberdError as error:
            said(error, "config.json", "weights")


@MANY
@given(st.sampled_from(["modules.json", "1_Pooling/config.json"]), damages())
def test_damaged_modules(name: str, damage: Damage) -> None:
    with damaged(name, damage) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "")


@MANY
@given(damages())
def test_a_damaged_tokenizer(damage: Damage) -> None:
    with damaged("tokenizer.json", damage) as folder:
        try:
            tokenizer = Tokenizer(folder, 16)
        except EmberdError as error:
            said(error, "tokenizer.json")
            return
        try:
            tokens = tokenizer.encode(["a text", "", "€ 漢字"])
        except BaseException as error:  # noqa: BLE001 - the worker answers such a request with 500
            assert type(error).__name__ == "PanicException" or isinstance(error, Exception)  # noqa: PT017
        else:
            assert all(len(text.ids) <= 16 for text in tokens)


@MANY
@given(st.integers(0, 2**63), st.binary(max_size=64))
def test_a_header_that_announces_too_much_is_refused_before_anything_is_allocated(
    announced: int, rest: bytes
) -> None:
    with damaged("model.safetensors", lambda _: announced.to_bytes(8, "little") + rest) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "safetensors")
        else:
            raise AssertionError("such a file is no model")


PACKED = {"bits": 8, "group_size": 64}


@MANY
@given(
    st.dictionaries(
        st.sampled_from(["bits", "group_size", "mode"]),
        st.integers(-(2**40), 2**40) | st.text(max_size=5) | st.none() | st.floats(),
    )
)
def test_packed_weights_whose_packing_is_nonsense(stated: dict[str, object]) -> None:
    def restate(content: bytes) -> bytes:
        return json.dumps(json.loads(content) | {"quantization": {**PACKED, **stated}}).encode()

    with damaged("config.json", restate) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "")
