"""A whole model as an OpenVINO graph: token vectors by its architecture, pooled, then its heads."""

import numpy as np
from openvino import Model, Node
from openvino import opset14 as op

from emberd.backends.architecture import Architecture, Bert, MPNet
from emberd.backends.base import Pooling
from emberd.backends.checkpoint import Checkpoint
from emberd.backends.openvino import bert, mpnet
from emberd.backends.openvino.graph import Weights, apply_head, pool


def build(architecture: Architecture, checkpoint: Checkpoint, pooling: Pooling) -> Model:
    """Return the model: token ids and mask, both `(B, T)` int32 -> `(B, D)` float32."""
    token_ids = op.parameter([-1, -1], np.int32, name="token_ids")
    mask = op.parameter([-1, -1], np.int32, name="mask")
    weights = Weights(checkpoint)
    vectors = pool(_encode(architecture, weights, token_ids, mask), mask, pooling)
    for head in checkpoint.heads:
        vectors = apply_head(vectors, head, weights)
    return Model([vectors], [token_ids, mask], architecture.model_type)


def _encode(architecture: Architecture, weights: Weights, token_ids: Node, mask: Node) -> Node:
    """Return the token vectors: `(B, T)` twice -> `(B, T, D)`."""
    match architecture:
        case Bert():
            return bert.encode(architecture, weights, token_ids, mask)
        case MPNet():
            return mpnet.encode(architecture, weights, token_ids, mask)
    raise NotImplementedError(architecture.model_type)  # `OpenVINOBackend.architectures` is wrong
