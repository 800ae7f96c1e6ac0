"""How far apart two tokens are, in the 32 buckets of MPNet's attention.

Source: arXiv:1910.10683, section 2.1 (T5), whose buckets MPNet uses.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

BUCKETS: Final = 32
_EXACT: Final = 8  # up to here, a bucket of its own for each distance
_FARTHEST: Final = 128  # from here on, one bucket for all


def buckets(distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the bucket of each `key - query`: 0 to 15 for keys before, 16 to 31 for keys after.

    Between the exact ones and the farthest, the width of a bucket grows with the distance.
    """
    far = np.abs(distances)
    half = BUCKETS // 2
    octaves = np.log2(np.maximum(far, _EXACT) / _EXACT) / np.log2(_FARTHEST / _EXACT)
    grown = np.minimum(_EXACT + (octaves * (half - _EXACT)).astype(np.int64), half - 1)
    bucket: npt.NDArray[np.int64] = np.where(far < _EXACT, far, grown) + half * (distances > 0)
    return bucket


def distance_buckets(length: int) -> npt.NDArray[np.int64]:
    """Return the buckets of the distances from `1 - length` to `length - 1`, in this order."""
    return buckets(np.arange(1 - length, length))
