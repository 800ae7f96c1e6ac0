"""Damaged model files: a clear error or a model, never a crash, a hang or another kind of error."""

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from emberd.backends.architectures.bert import Bert
from emberd.backends.architectures.native import NATIVE, read_architecture
from emberd.backends.base import LoadRequest
from emberd.backends.checkpoint import Checkpoint
from emberd.errors import EmberdError
from emberd.folder.differences import differences
from emberd.folder.reading import read_folder
from emberd.models.local import is_complete
from emberd.registry.spec import ModelSpec, Source
from emberd.worker.tokenizer import Tokenizer
from tests.fuzz.cases import JSON, Damage, changed, damages, fuzz

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
# Of numbers that are none: the worker looks at what comes out, not at what goes in.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Change = Callable[[bytes], bytes]


def content(name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return what a JSON file of the tiny BERT holds."""
    return json.loads((TINY / name).read_bytes())


def rewritten(data: object) -> Change:
    """Return a function that puts JSON in the place of what a file held."""
    return lambda _: json.dumps(data).encode()


def changes(good: object) -> st.SearchStrategy[Change]:
    """Damage a JSON file: any of its bytes, or a value in it, or all of it."""
    return damages() | (changed(good) | JSON).map(rewritten) | st.just(lambda _: b"[" * 100_000)


@contextmanager
def damaged(name: str, damage: Change) -> Iterator[Path]:
    """Give a copy of the tiny BERT with one damaged file."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(TINY, Path(folder) / "model"))
        file = copy / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(damage(file.read_bytes() if file.exists() else b""))
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


@fuzz(damages())
def test_weights(damage: Damage) -> None:
    with damaged("model.safetensors", damage) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "model")


@fuzz(changes(content("config.json")))
def test_config(damage: Change) -> None:
    with damaged("config.json", damage) as folder:
        try:
            read_folder(folder)
            read_all(folder)
        except EmberdError as error:
            said(error, "config.json", "weights")


DESCRIPTIONS = {
    "tokenizer_config.json": content("tokenizer_config.json"),
    "sentence_bert_config.json": {
        "max_seq_length": 16,
        "do_lower_case": True,
        "tokenizer_args": {},
    },
    "config_sentence_transformers.json": {
        "prompts": {"query": "q"},
        "default_prompt_name": "query",
    },
    "1_Pooling/config.json": {"pooling_mode": ["mean"], "include_prompt": False},
    "modules.json": content("modules.json"),
}
SPEC = ModelSpec(name="m", sources=(Source(path="/m"),), dimensions=64, pooling="mean")


@fuzz(
    st.sampled_from(sorted(DESCRIPTIONS)).flatmap(
        lambda name: st.tuples(st.just(name), changes(DESCRIPTIONS[name]))
    )
)
def test_descriptions(damage: tuple[str, Change]) -> None:
    name, change = damage
    good = json.dumps(DESCRIPTIONS[name]).encode()
    with damaged(name, lambda _: change(good)) as folder:
        try:
            says = read_folder(folder)
            differences(says, SPEC)
            json.dumps(asdict(says.options(SPEC)))
            Tokenizer(folder, 16, says.normalizer)
        except EmberdError as error:
            said(error, name, "tokenizer.json")


MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
POOLING = {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True, "pooling_mode": "mean"}
DENSE = {"in_features": 64, "out_features": 32, "bias": True, "activation_function": "x.Identity"}


@fuzz(changes(MODULES), changes(POOLING), changes(DENSE), st.sampled_from("mpd"))
def test_modules(modules: Change, pooling: Change, dense: Change, which: str) -> None:
    """One of them is damaged, the others are not."""
    whole = {
        "modules.json": MODULES,
        "1_Pooling/config.json": POOLING,
        "2_Dense/config.json": DENSE,
    }
    odd = dict(zip(whole, (modules, pooling, dense), strict=True))
    name = next(name for name in whole if name.strip("12_").lower().startswith(which))
    with damaged("config.json", lambda same: same) as folder:
        for file, data in whole.items():
            (folder / file).parent.mkdir(exist_ok=True)
            good = json.dumps(data).encode()
            (folder / file).write_bytes(odd[file](good) if file == name else good)
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, *whole, "config.json", "model.safetensors")


INDEX = {"metadata": {"total_size": 1}, "weight_map": {"a.weight": "model.safetensors"}}


@fuzz(changes(INDEX) | st.sampled_from(["..", ".", "", "a\x00b", "../x", 3]).map(
    lambda name: rewritten({"weight_map": {"a": name}})
))  # fmt: skip
def test_index(damage: Change) -> None:
    with damaged(
        "model.safetensors.index.json", lambda _: damage(json.dumps(INDEX).encode())
    ) as folder:
        is_complete(folder)
        (folder / "model.safetensors").unlink()
        is_complete(folder)
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, str(folder))  # the index, or what it names


@fuzz(changes(content("tokenizer.json")))
def test_tokenizer(damage: Change) -> None:
    with damaged("tokenizer.json", damage) as folder:
        try:
            tokenizer = Tokenizer(folder, 16)
        except EmberdError as error:
            said(error, "tokenizer.json")
            return
        try:
            tokens = tokenizer.encode(["a text", "", "€ 漢字"])
            list(tokenizer.describe("a text €"))
        except BaseException as error:  # noqa: BLE001 - the worker answers such a request with 500
            assert type(error).__name__ == "PanicException" or isinstance(error, Exception)  # noqa: PT017
        else:
            assert all(len(text.ids) <= 16 for text in tokens)


@fuzz(st.integers(0, 2**63), st.binary(max_size=64))
def test_a_header_that_announces_too_much(announced: int, rest: bytes) -> None:
    with damaged("model.safetensors", lambda _: announced.to_bytes(8, "little") + rest) as folder:
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "safetensors")
        else:
            raise AssertionError("such a file is no model")


SAME_SIZE = ["F32", "U32", "I32"], ["F16", "BF16", "I16"], ["F64", "I64", "U64"]


@st.composite
def other_tensors(draw: st.DrawFn) -> Change:
    """Return a function that gives tensors another type or shape of the same number of bytes."""
    choice = draw(
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), st.integers(0, 5)), min_size=1)
    )

    def damage(whole: bytes) -> bytes:
        end = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:end])
        names = [name for name in header if name != "__metadata__"]
        for place, kind, shape in choice:
            tensor = header[names[int(place * (len(names) - 1))]]
            count = math.prod(tensor["shape"])
            shapes = [[count], [count, 1], [1, count], tensor["shape"][::-1], [2, count // 2], []]
            if math.prod(shapes[shape]) == count:
                tensor["shape"] = shapes[shape]
            same = next(
                (kinds for kinds in SAME_SIZE if tensor["dtype"] in kinds), [tensor["dtype"]]
            )
            tensor["dtype"] = same[kind % len(same)]
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + whole[end:]

    return damage


PACKINGS = st.dictionaries(
    st.sampled_from(["bits", "group_size", "mode"]),
    st.integers(-(2**40), 2**40) | st.sampled_from([4, 8, 32, 64, "affine", "8", 8.0]) | JSON,
)


@fuzz(other_tensors(), st.none() | PACKINGS)
def test_packed_weights(tensors: Change, packing: dict[str, object] | None) -> None:
    with damaged("model.safetensors", tensors) as folder:
        if packing is not None:
            config = content("config.json")
            config["quantization"] = {"bits": 8, "group_size": 64, **packing}
            (folder / "config.json").write_text(json.dumps(config))
        try:
            read_all(folder)
        except EmberdError as error:
            said(error, "model.safetensors", "quantization", "config.json")
