"""Memory that was freed, which glibc keeps for later and can give back to the system."""

import ctypes
import sys


def give_back() -> None:
    """Return it to the system; elsewhere than with glibc, do nothing."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim:
            trim(0)
