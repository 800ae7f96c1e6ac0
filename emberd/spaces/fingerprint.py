"""The identity of a vector space: two vectors may be compared when their fingerprints are equal.

Over everything that moves vectors: model files, tokenizer, precision, pooling, normalization,
max_tokens, prompts and output dimensions. Not over the backend or the compute precision: those
must not move them.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from emberd.hashing import FileHash
from emberd.registry.spec import ModelSpec
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
        options: the limits and options in force, whether the entry or the checkpoint says so.
        dimensions: length of the vectors that are given out.
    """
    identity: dict[str, object] = {
        "format": FORMAT,
        "files": {name: files[name].sha256 for name in sorted(files) if _moves_vectors(name)},
        "precision": spec.precision,
        "pooling": spec.pooling,
        "normalize": options.normalize,
        "max_tokens": options.max_tokens,
        "prompts": options.prompts,
        "dimensions": dimensions,
    }
    # What came later counts only where it moves vectors, so that the others keep their fingerprint.
    if options.lower_case:
        identity["lower_case"] = True
    if options.normalizer:
        identity["normalizer"] = options.normalizer
    if options.include_prompt is False and any((options.prompts or {}).values()):
        identity["include_prompt"] = False
    canonical = json.dumps(identity, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:LENGTH]


def _moves_vectors(name: str) -> bool:
    """Weights, the model's config, Dense heads and tokenizer.json; not what only describes them.

    Of the descriptions counts what they effect, not their bytes: it is in `SpaceOptions` and in the
    pooling of the registry, which a file may contradict or leave out.
    """
    path = Path(name)
    if path.parent.name.endswith("_Pooling"):
        return False
    described = path.suffix in (".json", ".txt", ".md")
    return not described or path.name in ("config.json", "tokenizer.json")
