"""Which layers attend only near by, and the bases of rotary positions, in all spellings.

Transformers 5 writes `layer_types` and `rope_parameters`; older files have a pattern, and one key
for each base. Where both are stated, the newer one counts, as it does in transformers.
"""

from collections.abc import Callable
from dataclasses import dataclass

from emberd.backends.config import ModelConfig
from emberd.errors import ModelLoadError

GLOBAL, LOCAL = "full_attention", "sliding_attention"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKinds:
    """`local` says of each layer whether a token attends only to those up to `within` tokens away.

    Global and local layers have a base of their rotary positions each.
    """

    local: tuple[bool, ...]
    within: int
    global_theta: float
    local_theta: float


def read_local(
    config: ModelConfig, layers: int, is_local: Callable[[int], bool]
) -> tuple[bool, ...]:
    """Return for each layer whether it attends only near by; `is_local` says so by default.

    Raises:
        ModelLoadError: `layer_types` is not a list of two kinds, one for each layer.
    """
    stated = config.get("layer_types")
    if stated is None:
        return tuple(map(is_local, range(layers)))
    if (
        not isinstance(stated, list)
        or len(stated) != layers
        or any(kind not in (GLOBAL, LOCAL) for kind in stated)
    ):
        raise ModelLoadError(
            f"{config.path}: layer_types is {stated!r}, not one of {GLOBAL} and {LOCAL} for each of"
            f" {layers} layers."
        )
    return tuple(kind == LOCAL for kind in stated)


def read_theta(config: ModelConfig, key: str, default: float, *, kind: str = "") -> float:
    """Return the base of the rotary positions, for the layers of one `kind` or for all.

    `key` is its older name.

    Raises:
        ModelLoadError: it is not a positive number, or the positions are scaled.
    """
    config.expect(rope_scaling=None)
    stated = config.get("rope_parameters")
    try:
        rope = (stated[kind] if kind else stated) if stated else {}
        kind_of_rope = rope.get("rope_type", "default")
        theta = rope["rope_theta"] if stated else config.number(key, default)
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(
            f"{config.path}: `rope_parameters` cannot be read: {stated!r}."
        ) from None
    if kind_of_rope != "default":
        raise ModelLoadError(
            f"{config.path}: rope_type is {kind_of_rope!r}; only 'default' is supported."
        )
    return config.positive(key, theta)
