"""A whole model as an OpenVINO graph: the encoder of its architecture, pooling, and heads."""

from importlib import import_module

import numpy as np
from openvino import Model
from openvino import opset15 as op

from emberd.backends.architectures.base import Architecture
from emberd.backends.openvino.graph import Batch, Weights, apply_head, pool


def build(architecture: Architecture, weights: Weights) -> Model:
    """Return the model: the inputs of `rows.Rows` -> `(N, D)` float32. It borrows the weights."""
    token_ids, segments, queries, positions = (
        op.parameter([-1, -1], np.int32, name=name)
        for name in ("token_ids", "segments", "queries", "positions")
    )
    shapes = {"places": [-1] * (3 if weights.sparse else 1), "starts": [-1]}
    places, starts = (op.parameter(shapes[name], np.int32, name=name) for name in shapes)
    encoder = import_module(f"emberd.backends.openvino.{architecture.module}")
    types = op.parameter([-1, -1], np.int32, name="types") if weights.takes_pairs else None
    batch = Batch(token_ids, positions, segments, queries, types)
    tokens = encoder.encode(architecture, weights, batch)
    if weights.sparse:
        from emberd.backends.openvino import sparse  # which most models do not need

        vectors = sparse.encode(weights.sparse, weights, tokens, token_ids, places, starts)
    else:
        vectors = pool(tokens, architecture.hidden_size, places, starts)
    for head in weights.heads:
        vectors = apply_head(vectors, head, weights)
    inputs = [token_ids, segments, queries, positions, places, starts]
    inputs += [types] if types else []
    return Model([vectors], inputs, architecture.model_type)
