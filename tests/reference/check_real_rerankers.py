"""Random re-rankers of real models' sizes: emberd's logits against those of CrossEncoder.

For developers, and run with the Python of `requirements-reference.txt`; emberd itself runs in its
own, which `--emberd` names:

    check_real_rerankers.py                                 # all, on OpenVINO
    check_real_rerankers.py --backend mlx --few             # MLX's CPU build is slow

A checkpoint has the layers and heads of a published re-ranker, its classifier too, with random
weights (as `check_real_sizes.py`); the last layer reads the direction in which the pairs differ
most, so that their logits span 10 in both directions. sentence-transformers' CrossEncoder scores
each pair alone, in float64, so that its own rounding does not count; emberd in float32 alone,
padded in batches, and several pairs in a row, with its own tokenizer, which cuts the longest texts;
and in bfloat16, where the processor has it, both again. `--few` takes nine pairs of up to 128
tokens instead of 19 of up to 256.

`real_rerankers.json` keeps the largest differences, and for bfloat16 Kendall's tau. `their_f32` is
how far CrossEncoder in float32 is; results without it were compared with that.

One checkpoint at a time is in the folder for temporary files: up to 0.7 GB, and as much or twice
that in OpenVINO's cache.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import make_rerankers
import numpy as np
import torch
from check_real_sizes import BASE, LARGE, MOST_ROWS, weight
from make_tiny import CORPUS, FAMILIES
from safetensors.torch import load_file, save_file
from scipy.stats import kendalltau
from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging

HERE = Path(__file__).parent
RESULTS = HERE / "real_rerankers.json"
FARTHEST = 1e-4
LEAST_TAU = 0.99
SPAN = 10.0
LIMIT, FEW_LIMIT = 256, 128
"""Tokens of a pair. Longer ones are cut; local windows are shorter: 64 tokens to each side."""
WORDS = (*range(16), 24, 40, 400)
FEW_WORDS = (0, 1, 2, 5, 9, 14, 19, 24, 400)
"""Of each text."""

MINILM = {
    "hidden_size": 384,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
}
REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "ms-marco-minilm": ("bert", {**MINILM, "num_hidden_layers": 6}),
    "ms-marco-minilm-l12": ("bert", {**MINILM, "num_hidden_layers": 12}),
    "bge-reranker-base": (
        "xlm-roberta",
        {**BASE, "vocab_size": 250002, "max_position_embeddings": 514},
    ),
    "bge-reranker-v2-m3": (
        "xlm-roberta",
        {**LARGE, "vocab_size": 250002, "max_position_embeddings": 8194},
    ),
    "gte-reranker-modernbert": (
        "modernbert",
        {
            **BASE,
            "num_hidden_layers": 22,
            "intermediate_size": 1152,
            "vocab_size": 50368,
            "max_position_embeddings": 8192,
            "global_rope_theta": 160000.0,
            "local_rope_theta": 10000.0,
            "local_attention": 128,
        },
    ),
    "mxbai-rerank-base": (
        "deberta-v2",
        {
            **BASE,
            "vocab_size": 128100,
            "max_position_embeddings": 512,
            "position_buckets": 256,
            "pooler_hidden_size": 768,
        },
    ),
}
"""The entries of the catalog, their architectures, and the sizes in which they are as published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is asked for on the command line."""

    names: list[str]
    backend: str
    few: bool
    emberd: Path


def make(run: Run, name: str, folder: Path) -> None:
    """Write the pairs, the checkpoint, with weights in float16, and the tiny one's tokenizer."""
    architecture, sizes = REAL[name]
    tiny = next(family for family in FAMILIES if family.name == architecture)
    source = HERE / "rerankers" / architecture
    values = {**json.loads((source / "config.json").read_text()), **sizes}
    values["vocab_size"] = min(values["vocab_size"], MOST_ROWS)
    for key in ("layer_types", "rope_parameters"):  # the tiny one's; those of the sizes count
        values.pop(key, None)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(values))
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(folder))
    tensors = {
        key: weight(replace(tiny, name=name), key, tuple(tensor.shape), 1.0).contiguous()
        for key, tensor in model.state_dict().items()
        if not key.endswith("position_ids")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, folder)
    (folder / "pairs.json").write_text(json.dumps(make_pairs(few=run.few)))


def make_pairs(*, few: bool) -> dict[str, Any]:
    """Return a query, texts of random words, and how many tokens a pair may have."""
    draw = np.random.default_rng(11)
    words = CORPUS.split()
    return {
        "query": make_rerankers.QUERY,
        "texts": [" ".join(draw.choice(words, count)) for count in (FEW_WORDS if few else WORDS)],
        "limit": FEW_LIMIT if few else LIMIT,
    }


def pairs_of(folder: Path) -> tuple[list[tuple[str, str]], int]:
    """Return the pairs of a checkpoint, and how many tokens each may have."""
    given = json.loads((folder / "pairs.json").read_text())
    return [(given["query"], text) for text in given["texts"]], given["limit"]


def load(folder: Path, dtype: torch.dtype) -> CrossEncoder:
    """Return CrossEncoder with logits in this arithmetic."""
    return CrossEncoder(
        str(folder),
        max_length=pairs_of(folder)[1],
        activation_fn=torch.nn.Identity(),
        device="cpu",
        model_kwargs={"dtype": dtype},
    )


def theirs(folder: Path, dtype: torch.dtype) -> np.ndarray:
    """Return CrossEncoder's logits of each pair alone, `(N,)`, in this arithmetic."""
    pairs, _ = pairs_of(folder)
    return np.asarray(load(folder, dtype).predict(pairs, batch_size=1), np.float64)


def reference(folder: Path) -> np.ndarray:
    """Choose the last layer, and return CrossEncoder's logits in float64, pairs alone, `(N,)`.

    What differs between random texts is a small part of their vectors. A classifier that was
    trained would read just that: so this one reads the direction in which they differ most.
    """
    path = folder / "model.safetensors"
    weights = load_file(path)
    last = next(key for key in ("classifier.out_proj", "classifier") if f"{key}.weight" in weights)
    encoder, seen = load(folder, torch.float32), []
    layer = dict(encoder.named_modules())[
        next(name for name, _ in encoder.named_modules() if name.endswith(f".{last}"))
    ]
    layer.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].double()))
    encoder.predict(pairs_of(folder)[0], batch_size=1)
    vectors = torch.cat(seen)
    apart = vectors - vectors.mean(dim=0)
    direction = torch.linalg.svd(apart, full_matrices=False).Vh[0]
    found = vectors @ direction
    middle = (found.max() + found.min()) / 2
    factor = SPAN / (found.max() - middle)
    weights[f"{last}.weight"] = (direction * factor).float()[None].contiguous()
    weights[f"{last}.bias"] = (-middle * factor).float()[None]
    save_file(weights, path, metadata={"format": "pt"})
    return theirs(folder, torch.float64)


def score(run: Run, folder: Path, pooling: str, compute: str) -> dict[str, Any]:
    """Return emberd's logits by the way in which pairs were computed, and how many were cut."""
    command = [run.emberd, HERE / "score_real_rerankers.py", folder, run.backend, pooling, compute]
    done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(run: Run, name: str, folder: Path) -> dict[str, Any]:
    """Return what was found of one re-ranker."""
    make(run, name, folder)
    expected = reference(folder)
    pooling = "mean" if REAL[name][0] == "modernbert" else "cls"
    found = score(run, folder, pooling, "f32")
    by = {
        way: float(np.abs(np.array(found[way]) - expected).max())
        for way in ("alone", "batches", "packed")
    }
    result: dict[str, Any] = {
        "pairs": len(expected),
        "cut": found["cut"],
        "tokens": found["tokens"],
        "span": [round(float(expected.min()), 2), round(float(expected.max()), 2)],
        "f32": {way: float(f"{far:.1e}") for way, far in by.items()},
        "their_f32": float(f"{np.abs(theirs(folder, torch.float32) - expected).max():.1e}"),
    }
    rough = score(run, folder, pooling, "bf16")
    if rough:
        result["bf16"] = apart(np.array(rough["batches"]), expected)
        result["their_bf16"] = apart(theirs(folder, torch.bfloat16), expected)
    return result


def apart(logits: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Return the largest difference, and Kendall's tau of both orders."""
    return {
        "farthest": round(float(np.abs(logits - expected).max()), 3),
        "tau": round(float(kendalltau(logits, expected).statistic), 4),
    }


def passed(found: Mapping[str, Any]) -> bool:
    """Say whether the logits are near enough; in bfloat16, at least as near as CrossEncoder's."""
    order = found.get("bf16", {}).get("tau", 1.0)
    one_swap = 1 - 4 / (found["pairs"] * (found["pairs"] - 1))
    least = min(LEAST_TAU, one_swap, found.get("their_bf16", {}).get("tau", 1.0))
    return max(found["f32"].values()) <= FARTHEST and order >= least - 1e-4


def known() -> dict[str, Any]:
    """Return what was found before, by model and backend."""
    before: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return before


def read_command_line() -> Run:
    """Return what is asked for. Raises SystemExit: a name is not known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help=", ".join(REAL))
    parser.add_argument("--backend", choices=("openvino", "mlx"), default="openvino")
    parser.add_argument("--few", action="store_true", help="fewer and shorter pairs")
    parser.add_argument(
        "--emberd", type=Path, default=HERE.parents[1] / ".venv/bin/python", metavar="PYTHON"
    )
    run = Run(**vars(parser.parse_args()))
    if unknown := set(run.names) - set(REAL):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(REAL)}")
    return run


def main() -> None:
    """Check, and write `real_rerankers.json` after each. Raises SystemExit: logits differ."""
    run = read_command_line()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failed = []
    for name in run.names or REAL:
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            found = check(run, name, Path(scratch) / name)
        sys.stderr.write(f"{name}: {json.dumps(found)}\n")
        results = known()
        results.setdefault(name, {})[run.backend] = found
        text = json.dumps(results, indent=1, sort_keys=True)
        RESULTS.write_text(f"{text}\n", encoding="utf-8")
        if not passed(found):
            failed.append(name)
    if failed:
        raise SystemExit(f"Too far from CrossEncoder: {', '.join(failed)}")


if __name__ == "__main__":
    main()
