"""What global and local layers attend to, in MLX; see `architectures.layer_kinds`."""

import mlx.core as mx

from emberd.backends.architectures.layer_kinds import LayerKinds
from emberd.backends.mlx.attention import Angles, Rotary
from emberd.backends.mlx.packed import Packed


class Kinds:
    """Masks and rotary positions, made once for all layers of a kind."""

    def __init__(self, kinds: LayerKinds, head_size: int) -> None:
        self._kinds = kinds
        self._global = Rotary(head_size, kinds.global_theta)
        self._local = Rotary(head_size, kinds.local_theta)

    def of(self, batch: Packed, dtype: mx.Dtype) -> list[tuple[mx.array | None, Angles]]:
        """Return for each layer what to add to its scores, and the angles to turn by."""
        everywhere = batch.unseen(dtype), self._global.at(batch.positions, dtype)
        near = (
            batch.unseen(dtype, within=self._kinds.within),
            self._local.at(batch.positions, dtype),
        )
        return [near if local else everywhere for local in self._kinds.local]
