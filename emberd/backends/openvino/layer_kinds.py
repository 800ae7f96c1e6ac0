"""What global and local layers attend to, in OpenVINO; see `architectures.layer_kinds`."""

from functools import partial

from emberd.backends.architectures.layer_kinds import LayerKinds
from emberd.backends.openvino.attention import Attend, Rotary, attend
from emberd.backends.openvino.graph import Batch
from emberd.backends.openvino.local_attention import Near


def of_each_layer(
    kinds: LayerKinds, batch: Batch, heads: int, head_size: int, longest: int
) -> list[tuple[Attend, Rotary]]:
    """Return for each layer how it attends, and its rotary positions, below `longest`."""
    everywhere, near = (
        (attends, Rotary(batch.positions, head_size, theta, longest))
        for attends, theta in (
            (partial(attend, mask=batch.same_text()), kinds.global_theta),
            (Near(batch, kinds.within, heads).attend, kinds.local_theta),
        )
    )
    return [near if local else everywhere for local in kinds.local]
