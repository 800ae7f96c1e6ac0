"""What Linux says of this machine's processor, as far as a compiled graph depends on it."""

from functools import cache
from pathlib import Path


@cache
def processor() -> str:
    """Return vendor, model and flags of the first processor; empty where Linux does not say."""
    lines: list[str] = []
    try:
        with Path("/proc/cpuinfo").open() as info:
            for line in info:  # read no further: the kernel makes this text for every core
                if not line.strip():
                    break
                if line.startswith(("vendor_id", "model name", "flags", "Features")):
                    lines.append(line)
    except OSError:
        pass
    return "".join(lines)


def bf16_is_faster(processor: str) -> bool:
    """Say whether a processor that has bfloat16 products does them faster than float32 ones.

    AMD's AVX-512 takes half the time. Intel's does not (measured: 1.7 times the time of float32);
    there it takes AMX. Where Linux does not say, yes.
    """
    return "GenuineIntel" not in processor or has_amx(processor)


def has_amx(processor: str) -> bool:
    """Say whether products of bfloat16 run on Intel's matrix extension."""
    return "amx_bf16" in processor
