"""What Linux says about this machine's processor, as far as a compiled graph depends on it."""

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


def bf16_is_faster(processor: str) -> bool:
    """Say whether a processor with bfloat16 instructions is faster with them than with float32.

    With AVX-512, AMD takes half the time; Intel does not (measured: 1.7 times the time of float32)
    and needs AMX. Where Linux does not say, assume yes.
    """
    return "GenuineIntel" not in processor or has_amx(processor)


def has_amx(processor: str) -> bool:
    """Say whether it has Intel's matrix extension for bfloat16."""
    return "amx_bf16" in processor


def uses_amx(compute: str) -> bool:
    """Say whether this arithmetic uses the matrix unit of Intel's newer processors here."""
    return compute == "bf16" and has_amx(processor())
