"""A whole model as an OpenVINO graph: the encoder of its architecture, pooling, and heads."""

from collections.abc import Callable

import numpy as np
from openvino import Model, Node
from openvino import opset15 as op

from emberd.backends.architecture import Architecture, Bert, MPNet
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.openvino import bert, mpnet
from emberd.backends.openvino.graph import Weights, apply_head, pool, same_text


def build(architecture: Architecture, checkpoint: Checkpoint) -> Model:
    """Return the model: the inputs of `rows.Rows` -> `(N, D)` float32."""
    token_ids, segments, queries, positions = (
        op.parameter([-1, -1], np.int32, name=name)
        for name in ("token_ids", "segments", "queries", "positions")
    )
    places, starts = (op.parameter([-1], np.int32, name=name) for name in ("places", "starts"))
    weights = Weights(checkpoint)
    encode = _encoder(architecture)
    tokens = encode(architecture, weights, token_ids, positions, same_text(segments, queries))
    vectors = pool(tokens, architecture.hidden_size, places, starts)
    for head in checkpoint.heads:
        vectors = apply_head(vectors, head, weights)
    inputs = [token_ids, segments, queries, positions, places, starts]
    return Model([vectors], inputs, architecture.model_type)


def _encoder(architecture: Architecture) -> Callable[..., Node]:
    match architecture:
        case Bert():
            return bert.encode
        case MPNet():
            return mpnet.encode
    raise NotImplementedError(architecture.model_type)  # `OpenVINOBackend.architectures` is wrong
