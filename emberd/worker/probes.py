"""Embeds the probe texts of `spaces.probes` with a model that has just been loaded."""

from emberd import vectors
from emberd.backends.base import Encoder, encode_alone
from emberd.spaces.probes import PROBES
from emberd.vectors import Matrix
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer


def embed_probes(tokenizer: Tokenizer, encoder: Encoder) -> Matrix:
    """Return the probes' vectors, `(8, D)`, of unit length (or as they are, when not finite)."""
    rows = encode_alone(encoder, *pad(tokenizer.encode(PROBES)))
    return vectors.normalize(rows) if vectors.finite_rows(rows).all() else rows
