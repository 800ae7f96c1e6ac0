"""The name of a vector space: a hash of everything that is known to shape its vectors.

Vectors with equal fingerprints may be compared. The hash covers model files, tokenizer, precision,
pooling, normalization, max_tokens, prompts and output dimensions. It leaves out the backend and the
compute precision, which must not move vectors.

Vectors of another dtype than float32 are of a space of their own, named after the one that they are
made from. So are those of late chunking.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from emberd.dtypes import Dtype, has_step
from emberd.hashing import FileHash
from emberd.registry.spec import Kind, ModelSpec, is_of_kind
from emberd.spaces.options import SpaceOptions

FORMAT = 1  # raise it when the same inputs must give another fingerprint
LENGTH = 16  # hex digits: 64 bits


def fingerprint(
    spec: ModelSpec, *, files: Mapping[str, FileHash], options: SpaceOptions, dimensions: int
) -> str:
    """Return the fingerprint of the space that `spec` gives with these files.

    Args:
        spec: the registry's entry: its precision and pooling.
        files: hashes of the files that the backend uses.
        options: the limits and options in force, from the entry or from the checkpoint.
        dimensions: length of the vectors that the model returns.
    """
    identity: dict[str, object] = {
        "format": FORMAT,
        "files": {name: files[name].sha256 for name in sorted(files) if _moves(name, spec.kind)},
        "precision": spec.precision,
        "pooling": spec.pooling,
        "normalize": options.normalize,
        "max_tokens": options.max_tokens,
        "prompts": options.prompts,
        "dimensions": dimensions,
    }
    # Options that were added later only count if they move vectors, so that all other models keep
    # the fingerprint they had.
    if spec.kind != "embed":
        identity["kind"] = spec.kind
    if options.matryoshka_norm and dimensions < spec.dimensions:
        identity["matryoshka_norm"] = True
    if options.lower_case:
        identity["lower_case"] = True
    if options.normalizer:
        identity["normalizer"] = options.normalizer
    if options.include_prompt is False and any((options.prompts or {}).values()):
        identity["include_prompt"] = False
    return _digest(identity)


def of_dtype(space: str, dtype: Dtype, step: float) -> str:
    """Return the fingerprint of what is made of vectors of `space` by rounding them to `dtype`.

    Args:
        space: the fingerprint of the float32 vectors.
        dtype: what their numbers become.
        step: that of int8 and uint8; the others have none.
    """
    if dtype == "float":
        return space
    identity: dict[str, object] = {"format": FORMAT, "space": space, "dtype": dtype}
    return _digest(identity | ({"step": step} if has_step(dtype) else {}))


def of_late(space: str) -> str:
    """Return the fingerprint of the vectors of chunks whose texts a model of `space` read whole."""
    return _digest({"format": FORMAT, "space": space, "chunks": "late"})


def _digest(identity: Mapping[str, object]) -> str:
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]


def _moves(name: str, kind: Kind) -> bool:
    """Whether a file's bytes count: weights, config.json, Dense heads and tokenizer.json do.

    So does the table that gives queries of a sparse model their weights. Files that only describe
    the model count by what they change, which is in `SpaceOptions` and in the registry's pooling,
    and not by their bytes.
    """
    path = Path(name)
    if not is_of_kind(name, kind):
        return False
    if path.parent.name.endswith("_Pooling"):
        return False
    described = path.suffix in (".json", ".txt", ".md")
    return not described or path.name in ("config.json", "tokenizer.json", "idf.json")
