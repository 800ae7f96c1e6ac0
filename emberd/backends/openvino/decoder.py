"""The blocks of today's decoders as OpenVINO operations; see `architectures.decoder`.

Shapes in comments: R rows of W tokens, D hidden size, H heads, S head size.
"""

from openvino import Node

from emberd.backends.architectures.decoder import Decoder
from emberd.backends.openvino.attention import Attend, Rotary, repeat_heads, split_heads
from emberd.backends.openvino.graph import Batch, Weights, gated


class Blocks:
    """The blocks of one model, by the names of their tensors. `(R, W, D)` stays everywhere."""

    def __init__(self, sizes: Decoder, weights: Weights) -> None:
        self._sizes = sizes
        self._weights = weights

    def embed(self, batch: Batch) -> Node:
        """Look the tokens up."""
        sizes = self._sizes
        return self._weights.look_up(
            batch.token_ids, "embed_tokens", sizes.vocab_size, sizes.hidden_size
        )

    def norm(self, x: Node, name: str) -> Node:
        """Divide token vectors by their root mean square, then scale."""
        return self._norm(x, name, self._sizes.hidden_size)

    def attention(self, x: Node, name: str, attend: Attend, rotary: Rotary) -> Node:
        """Attention as `attend` does it; queries and keys are normalized before they are turned."""
        sizes = self._sizes
        size, heads, groups = sizes.head_size, sizes.num_attention_heads, sizes.num_key_value_heads

        def project(which: str, count: int) -> Node:
            return self._weights.linear(
                x, f"{name}.{which}_proj", count * size, sizes.hidden_size, bias=False
            )

        def turn(which: str, count: int) -> Node:
            def norm(split: Node) -> Node:
                return self._norm(split, f"{name}.{which}_norm", size)

            return rotary.turn(split_heads(project(which, count), count, size, norm))

        query, key = turn("q", heads), turn("k", groups)
        value = split_heads(project("v", groups), groups, size)
        key, value = (repeat_heads(each, heads // groups) for each in (key, value))
        attended = attend(query, key, value, scale=sizes.attention_scale)
        return self._weights.linear(
            attended, f"{name}.o_proj", sizes.hidden_size, heads * size, bias=False
        )

    def feed_forward(self, x: Node, name: str) -> Node:
        """Two linear layers with a gate between them."""
        size, wide = self._sizes.hidden_size, self._sizes.intermediate_size

        def widen(x: Node, which: str) -> Node:
            return self._weights.linear(x, f"{name}.{which}_proj", wide, size, bias=False)

        return gated(
            x,
            lambda x: (widen(x, "gate"), widen(x, "up")),
            self._sizes.activation,
            lambda x: self._weights.linear(x, f"{name}.down_proj", size, wide, bias=False),
        )

    def _norm(self, x: Node, name: str, size: int) -> Node:
        sizes = self._sizes
        return self._weights.rms_norm(
            x, name, size, sizes.rms_norm_eps, add_to_scale=sizes.add_to_scale
        )
