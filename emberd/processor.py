"""This machine's processor, as far as what is compiled for it depends on that."""

import hashlib
import os
from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """Return vendor, model and flags of the first processor; empty where Linux does not say."""
    lines: list[str] = []
    try:
        with Path("/proc/cpuinfo").open() as info:
            for line in info:  # stop after the first: the kernel generates this text for each core
                if not line.strip():
                    break
                if line.startswith(("vendor_id", "model name", "flags", "Features")):
                    lines.append(line)
    except OSError:
        pass
    return "".join(lines)


def processor_key() -> str:
    """Return a digest that is another one on another kind of processor; cheap."""
    return hashlib.sha256(f"{os.uname().machine}\n{processor()}".encode()).hexdigest()[:16]
