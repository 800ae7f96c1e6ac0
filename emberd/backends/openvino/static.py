"""Static models as OpenVINO operations; see `architectures.static` for the source.

Shapes in comments: R rows of W tokens, D hidden size.
"""

from openvino import Node
from openvino import opset15 as op

from emberd.backends.architectures.static import TABLE, Static
from emberd.backends.openvino.graph import Batch, Weights, integers, whole


def encode(static: Static, weights: Weights, batch: Batch) -> Node:
    """Return the token vectors, `(R, W, D)`."""
    row = batch.token_ids
    if weights.has("mapping"):
        mapping = weights.integers("mapping", static.vocab_size, below=static.rows)
        row = op.gather(mapping, row, whole(0))
    x = weights.look_up(row, TABLE, static.rows, static.hidden_size)
    if weights.has("weights"):
        factor = op.gather(weights.vector("weights", static.vocab_size), batch.token_ids, whole(0))
        x = op.multiply(x, op.unsqueeze(factor, integers(2)))
    return x
