"""Embeds the probe texts of `spaces.probes` with a model that has just been loaded."""

import numpy as np

from emberd import vectors
from emberd.backends.base import Encoder, encode_alone
from emberd.registry.spec import Kind
from emberd.spaces.probes import PROBES, Rows
from emberd.vectors import Matrix
from emberd.worker import sparse
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer


def probes_of(kind: Kind, tokenizer: Tokenizer, encoder: Encoder) -> Rows:
    """Return what to remember of the probes' vectors, for a model of this kind.

    Nothing for a re-ranker: nobody stores scores, so there is nothing that they must still fit.
    """
    if kind == "rerank":
        return ()
    if kind == "sparse":
        return sparse.sketch(encode_alone(encoder, *pad(tokenizer.encode(PROBES))))
    return embed_probes(tokenizer, encoder)


def embed_probes(tokenizer: Tokenizer, encoder: Encoder) -> Matrix:
    """Return the probes' vectors, `(8, D)`, of unit length (or as they are, when not finite).

    A static model may know no token of a probe, whose row is then zero.
    """
    tokens = tokenizer.encode(PROBES)
    known = [place for place, text in enumerate(tokens) if text.ids]
    probes = np.zeros((len(PROBES), encoder.dimensions), np.float32)
    if known:
        rows = encode_alone(encoder, *pad([tokens[place] for place in known]))
        probes[known] = vectors.normalize(rows) if vectors.finite_rows(rows).all() else rows
    return probes
