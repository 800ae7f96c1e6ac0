"""What global and local layers attend to, in OpenVINO; see `architectures.layer_kinds`."""

from openvino import Node

from emberd.backends.architectures.layer_kinds import LayerKinds
from emberd.backends.openvino.attention import Rotary
from emberd.backends.openvino.graph import Batch


def of_each_layer(
    kinds: LayerKinds, batch: Batch, head_size: int, longest: int
) -> list[tuple[Node, Rotary]]:
    """Return for each layer its attention mask, and its rotary positions, below `longest`."""
    everywhere, near = (
        (mask, Rotary(batch.positions, head_size, theta, longest))
        for mask, theta in (
            (batch.same_text(), kinds.global_theta),
            (batch.near(kinds.within), kinds.local_theta),
        )
    )
    return [near if local else everywhere for local in kinds.local]
