"""Batches of only a few shapes, for engines where a new shape costs more than padding.

On CUDA each shape needs its own attention plan: 45 to 70 ms on an H200, as long as ten large
batches, and MLX keeps 256 of them. With AMX, OpenVINO makes kernels for each, which takes half as
long as a batch. So sizes are rounded up: to a power of two where rows hold several texts, since
full batches have such sizes anyway, otherwise to one of four per octave, by a quarter at most.
"""

import numpy as np

from emberd.backends.base import TokenIds

_LEAST_TOKENS = 8  # what attention on CUDA reads at once, and half an AMX tile


def pad(*arrays: TokenIds, max_tokens: int, steps: int = 4) -> tuple[TokenIds, ...]:
    """Pad token ids, mask and perhaps types, `(B, T)`, below and on the right to one of few shapes.

    At most to `max_tokens`. Added rows have one unmasked token: the softmax over none would be NaN.
    """
    texts, tokens = arrays[0].shape
    width = max(tokens, min(round_up(tokens, least=_LEAST_TOKENS, steps=steps), max_tokens))
    height = round_up(texts, steps=steps)
    if (height, width) == (texts, tokens):
        return arrays
    arrays = tuple(_grown(each, height, width) for each in arrays)
    arrays[1][texts:, 0] = 1
    return arrays


def pad_tokens(*arrays: TokenIds, max_tokens: int) -> tuple[TokenIds, ...]:
    """Pad `(B, T)` only on the right, to one of few lengths, at most to `max_tokens`."""
    texts, tokens = arrays[0].shape
    width = max(tokens, min(round_up(tokens, least=_LEAST_TOKENS), max_tokens))
    if width == tokens:
        return arrays
    return tuple(_grown(each, texts, width) for each in arrays)


def _grown(array: TokenIds, height: int, width: int) -> TokenIds:
    """Pad with zeros; `np.pad` takes 30 µs however little there is."""
    grown = np.zeros((height, width), array.dtype)
    grown[: array.shape[0], : array.shape[1]] = array
    return grown


def round_up(number: int, *, least: int = 1, steps: int = 4) -> int:
    """Round up to the next of `steps` numbers per octave, which are at least `least` apart."""
    step = max(least, power_of_two(number) // 2 // steps)
    return -(-number // step) * step


def power_of_two(number: int) -> int:
    """Round up to a power of two."""
    return 1 << (number - 1).bit_length()
