"""Random checkpoints of real models' sizes: emberd's vectors against those of transformers.

For developers, and run with the Python of `requirements-reference.txt`; emberd itself runs in its
own, which `--emberd` names:

    check_real_sizes.py                                   # all, on OpenVINO, up to 8,192 tokens
    check_real_sizes.py bert t5 --backend mlx --longest 512
    check_real_sizes.py qwen3 --layers 4                  # the first layers only, to save time

A checkpoint has the layers, heads and windows of a published model, with random weights (see
`make_tiny.py`; so large that attention is far from uniform). Its vectors are computed by
transformers in float32, each text alone, and by emberd in float32: alone, padded in a batch, and
several texts in a row. `real_sizes.json` keeps the lowest cosine of each, and the memory that the
longest text took above that of the idle encoder; under `cut` with the first layers only. With
`--precision 4bit` or `8bit`, both backends quantize the weights, and are compared with each other.

One checkpoint at a time is in the folder for temporary files: up to 1 GB, and twice that in
OpenVINO's cache; `--keep` keeps them, for the next backend. Sizes are those of config.json in the
repository that is named, unless there is a note.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import make_tiny
import numpy as np
import published
import torch
from make_tiny import FAMILIES, Family, Vectors, lowest_cosine
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel
from transformers.utils import logging

HERE = Path(__file__).parent
RESULTS = HERE / "real_sizes.json"
LENGTHS = (1, 2, 17, 64, 129, 512, 2048, 8192)
MIN_COSINE = 0.9999
MOST_ALIKE = 0.995
"""Two texts may be so close. They are then fifty times as far apart as a vector may be from its
reference; nearer ones would show no mistake."""
MOST_ROWS = 32_768
"""Of the table of tokens: looking up in a longer one is the same."""
KINDS_OF_TOKENS = 40
"""In a text. With all of the vocabulary, the means of long texts would hardly differ."""


NAMES_OF_LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """A published model: what differs from the tiny checkpoint of its architecture.

    `limit`: the longest text that is checked. `note`: what there is to say about the sizes.
    `scale`: of products, where the vectors of many layers would all be alike without it.
    """

    model: str
    family: str
    pooling: str
    limit: int
    sizes: Mapping[str, object]
    heads: tuple[int, ...] = ()
    note: str = ""
    scale: float = 1.0


BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
ALIBABA = {**BASE, "vocab_size": 250048, "max_position_embeddings": 8192, "type_vocab_size": 1}

REAL = {
    "model2vec": Real(
        model="minishlab/potion-base-8M",
        family="model2vec",
        pooling="mean",
        limit=8192,
        sizes={"vocab_size": 29528, "hidden_dim": 256},
    ),
    "distilbert": Real(
        model="sentence-transformers/msmarco-distilbert-base-v4",
        family="distilbert",
        pooling="mean",
        limit=512,
        sizes={
            "vocab_size": 30522,
            "dim": 768,
            "n_layers": 6,
            "n_heads": 12,
            "hidden_dim": 3072,
            "max_position_embeddings": 512,
        },
    ),
    "bert": Real(
        model="BAAI/bge-base-en-v1.5",
        family="bert",
        pooling="cls",
        limit=512,
        sizes={**BASE, "vocab_size": 30522, "max_position_embeddings": 512},
    ),
    "roberta": Real(
        model="sentence-transformers/all-distilroberta-v1",
        family="roberta",
        pooling="mean",
        limit=512,
        sizes={
            **BASE,
            "num_hidden_layers": 6,
            "vocab_size": 50265,
            "max_position_embeddings": 514,
        },
    ),
    "xlm-roberta": Real(
        model="intfloat/multilingual-e5-base",
        family="xlm-roberta",
        pooling="mean",
        limit=512,
        sizes={**BASE, "vocab_size": 250002, "max_position_embeddings": 514},
    ),
    "mpnet": Real(
        model="sentence-transformers/all-mpnet-base-v2",
        family="mpnet",
        pooling="mean",
        limit=512,
        sizes={**BASE, "vocab_size": 30527, "max_position_embeddings": 514},
    ),
    "t5": Real(
        model="sentence-transformers/sentence-t5-base",
        family="t5",
        pooling="mean",
        limit=2048,
        sizes={
            "vocab_size": 32128,
            "d_model": 768,
            "d_ff": 3072,
            "num_layers": 12,
            "num_heads": 12,
            "d_kv": 64,
            "n_positions": 2048,
        },
        note="n_positions is 2,048 instead of 512: relative positions have no limit.",
    ),
    "nomic_bert": Real(
        model="nomic-ai/nomic-embed-text-v1.5",
        family="nomic_bert",
        pooling="mean",
        limit=8192,
        sizes={
            **BASE,
            "vocab_size": 30528,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
            "n_inner": 3072,
            "n_positions": 8192,
            "max_position_embeddings": 2048,
            "max_trained_positions": 2048,
            "rotary_emb_base": 1000,
            "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
        },
    ),
    "jina_bert": Real(
        model="jinaai/jina-embeddings-v2-base-en",
        family="jina_bert",
        pooling="mean",
        limit=8192,
        sizes={
            **BASE,
            "vocab_size": 30528,
            "max_position_embeddings": 8192,
            "model_max_length": 8192,
        },
    ),
    "new": Real(
        model="Alibaba-NLP/gte-multilingual-base",
        family="new",
        pooling="cls",
        limit=8192,
        sizes={
            **ALIBABA,
            "pad_token_id": 1,
            "rope_theta": 20000,
            "rope_scaling": {"factor": 8.0, "type": "ntk"},
        },
    ),
    "gte": Real(
        model="Snowflake/snowflake-arctic-embed-m-v2.0",
        family="gte",
        pooling="cls",
        limit=8192,
        sizes={**ALIBABA, "rope_theta": 160000},
        note="Sizes are the defaults of transformers' GteConfig: the card says that it builds on"
        " gte-multilingual-base, and has 305M parameters, 113M without embeddings, as these have.",
    ),
    "modernbert": Real(
        model="answerdotai/ModernBERT-base",
        family="modernbert",
        pooling="cls",
        limit=8192,
        sizes={
            "vocab_size": 50368,
            "hidden_size": 768,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "intermediate_size": 1152,
            "max_position_embeddings": 8192,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "local_attention": 128,
        },
    ),
    "gemma3_text": Real(
        model="google/embeddinggemma-300m",
        family="gemma3_text",
        pooling="mean",
        limit=2048,
        heads=(3072, 768),
        sizes={
            "vocab_size": 262144,
            "hidden_size": 768,
            "num_hidden_layers": 24,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "intermediate_size": 1152,
            "max_position_embeddings": 2048,
            "query_pre_attn_scalar": 256,
            "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4,
            "sliding_window_pattern": 6,
            "_sliding_window_pattern": 6,
            "sliding_window": 512,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
        },
    ),
    "qwen3": Real(
        model="Qwen/Qwen3-Embedding-0.6B",
        family="qwen3",
        pooling="last",
        limit=8192,
        sizes={
            "vocab_size": 151669,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
            "max_position_embeddings": 32768,
            "rope_theta": 1000000,
            "max_window_layers": 28,
        },
    ),
    "xlm-roberta-large": Real(
        model="BAAI/bge-m3",
        family="xlm-roberta",
        pooling="cls",
        limit=8192,
        sizes={**LARGE, "vocab_size": 250002, "max_position_embeddings": 8194},
        scale=2.0,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is asked for on the command line."""

    names: list[str] = field(default_factory=list)
    backend: str
    precision: str
    longest: int
    layers: int
    emberd: Path
    keep: Path | None


def of_real_size(name: str, real: Real, layers: int) -> Family:
    """Return the architecture's tiny checkpoint, grown; with `layers`, with the first ones only."""
    tiny = next(family for family in FAMILIES if family.name == real.family)
    config = {"model_type": real.family, **tiny.config, **real.sizes}
    config["vocab_size"] = min(config["vocab_size"], MOST_ROWS)
    if layers:
        config |= {key: layers for key in NAMES_OF_LAYERS if key in config}
        if "layer_types" in config:
            config["layer_types"] = config["layer_types"][:layers]
    return replace(
        tiny,
        name=name,
        config=config,
        pooling=real.pooling,
        poolings=(real.pooling,),
        heads=real.heads,
    )


def write_checkpoint(family: Family, folder: Path, scale: float = 1.0) -> None:
    """Write the folder, with weights in float16."""
    make_tiny.write_json(folder / "config.json", family.config)
    sizes = family.config
    if family.is_static:
        make_tiny.write_static(family, folder, sizes["vocab_size"], sizes["hidden_dim"])
        return
    config = AutoConfig.from_pretrained(folder)
    tensors = {}
    with torch.device("meta"):
        shapes = make_tiny.shapes_of(family, config)
    for key, shape in shapes.items():
        if family.has_pooler or not key.startswith("pooler."):
            tensors[key] = weight(family, key, shape, scale)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    make_tiny.write_modules(family, folder, config.hidden_size)


def weight(family: Family, name: str, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    """Return a random tensor; products are `scale` times those of the tiny checkpoints."""
    values = make_tiny.random_weight(family, name, shape)
    if len(shape) > 1 and "relative_attention_bias" not in name:
        values *= (make_tiny.HIDDEN / shape[-1]) ** 0.5
        values *= 1 if "embeddings" in name else scale
    return values.half()


def write_reference(family: Family, folder: Path, lengths: list[int]) -> None:
    """Write token ids and vectors of one text of each length."""
    draw = np.random.default_rng(7)
    first = family.config["vocab_size"] // 10  # special tokens come before
    kinds = draw.integers(first, family.config["vocab_size"], (len(lengths), KINDS_OF_TOKENS))
    ids = [draw.choice(own, length).tolist() for own, length in zip(kinds, lengths, strict=True)]
    (folder / "texts.json").write_text(json.dumps(ids), encoding="utf-8")
    if family.is_static:
        vectors = make_tiny.embed_static(folder, ids)
    else:
        attention = "sdpa" if family.has_sdpa else "eager"
        vectors = make_tiny.embed(family, folder, attention, ids)
    np.save(folder / "reference.npy", vectors[family.pooling])


def make(run: Run, name: str, real: Real, folder: Path) -> None:
    """Make the checkpoint and its reference, unless they are there."""
    record = folder / "made.json"
    if not record.exists():
        family = of_real_size(name, real, run.layers)
        folder.mkdir(parents=True, exist_ok=True)
        write_checkpoint(family, folder, real.scale)
        lengths = [length for length in LENGTHS if length <= min(real.limit, run.longest)]
        write_reference(family, folder, lengths)
        make_tiny.write_json(record, {"lengths": lengths})


def encode(run: Run, real: Real, folder: Path, backend: str) -> tuple[dict[str, Vectors], float]:
    """Return emberd's vectors, and the memory of the longest text in MiB."""
    out = folder / f"{backend}.npz"
    command = [run.emberd, HERE / "encode_real_sizes.py", folder, backend, run.precision]
    longest = min(real.limit, run.longest)
    done = subprocess.run(
        [*map(str, command), real.pooling, str(real.limit), str(longest), str(out)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    with np.load(out) as arrays:
        return dict(arrays), json.loads(done.stdout)["peak_mib"]


def compare(found: Mapping[str, Vectors], reference: Vectors) -> dict[str, float]:
    """Return the lowest cosine of each way in which texts were encoded."""
    return {
        way: round(lowest_cosine(found[way], reference[found[f"{way}_texts"]]), 7)
        for way in ("alone", "batch", "packed")
    }


def most_alike(vectors: Vectors) -> float:
    """Return the highest cosine of two texts."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return round(float((unit @ unit.T - 2 * np.eye(len(unit))).max()), 4)


def check(run: Run, name: str, real: Real, folder: Path) -> dict[str, dict[str, object]]:
    """Return what was found, under the backend's name, or for both of them the precision."""
    make(run, name, real, folder)
    made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    reference = np.load(folder / "reference.npy")
    lengths = [length for length in made["lengths"] if length <= run.longest]
    if run.precision != "f32":
        ours, _ = encode(run, real, folder, "openvino")
        theirs, _ = encode(run, real, folder, "mlx")
        found = {
            "lowest": min(compare(ours, theirs["alone"]).values()),
            "lengths": lengths,
            "to_float32": min(compare(ours, reference).values()),
        }
        return {f"both_{run.precision}": found}
    vectors, peak = encode(run, real, folder, run.backend)
    by = compare(vectors, reference)
    found = {
        "lowest": min(by.values()),
        "by": by,
        "lengths": lengths,
        "peak_mib_longest": peak,
        "most_alike": most_alike(reference[: len(lengths)]),
    }
    if run.layers:
        return {run.backend: {"cut": {**found, "layers": run.layers}}}
    return {run.backend: found}


def passed(found: Mapping[str, object]) -> bool:
    """Say whether the cosines are high enough, and those of different texts low enough."""
    return found["lowest"] >= MIN_COSINE and found.get("most_alike", 0) < MOST_ALIKE


def remember(name: str, real: Real, found: Mapping[str, object]) -> None:
    """Write what was found into `real_sizes.json`; a second model is in the entry of the first."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    entry = results.setdefault(real.family, {})
    if name != real.family:
        entry = entry.setdefault("also", {}).setdefault(name, {})
    entry["model"] = real.model
    if real.note:
        entry["note"] = real.note
    for key, value in found.items():
        entry[key] = {**entry.get(key, {}), **value}
    text = json.dumps(results, indent=1, sort_keys=True)
    RESULTS.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_command_line() -> Run:
    """Return what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(REAL))
    parser.add_argument("--backend", choices=("openvino", "mlx"), default="openvino")
    parser.add_argument("--precision", choices=("f32", "8bit", "4bit"), default="f32")
    parser.add_argument("--longest", type=int, default=max(LENGTHS), metavar="TOKENS")
    parser.add_argument("--layers", type=int, default=0, help="of all; by default, all of them")
    parser.add_argument("--emberd", type=Path, default=HERE.parents[1] / ".venv/bin/python")
    parser.add_argument("--keep", type=Path, help="a folder for checkpoints, not deleted")
    run = Run(**vars(parser.parse_args()))
    if unknown := set(run.names) - REAL.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(REAL)}")
    return run


def main() -> None:
    """Check, and write `real_sizes.json` after each.

    Raises:
        SystemExit: vectors differ.
    """
    run = read_command_line()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    AutoConfig.register("new", published.NewConfig)
    AutoModel.register(published.NewConfig, published.NewModel)
    published.register()
    failed = []
    for name in run.names or REAL:
        folder = (run.keep or Path(tempfile.mkdtemp())) / name
        try:
            found = check(run, name, REAL[name], folder)
        finally:
            if not run.keep:
                shutil.rmtree(folder.parent)
        sys.stdout.write(f"{name}: {json.dumps(found)}\n")
        sys.stdout.flush()
        remember(name, REAL[name], found)
        if not all(passed(value.get("cut", value)) for value in found.values()):
            failed.append(name)
    if failed:
        raise SystemExit(f"Too far from the reference: {', '.join(failed)}")


if __name__ == "__main__":
    main()
