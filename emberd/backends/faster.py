"""What `compute: bf16` would give a model that computes in float32 because nobody said otherwise.

`compute: auto` keeps float32 for `precision: f32`, which is the default (decision 8). On processors
that multiply bfloat16 faster, that costs more than half of the speed, so it has to be said.
"""

from emberd.backends.openvino.processor import bf16_is_faster
from emberd.processor import processor
from emberd.registry.difference import Difference
from emberd.registry.spec import ModelSpec

TOKENS_PER_SECOND = {"amx_bf16": "2.4 times as many", "avx512_bf16": "twice as many"}
"""By the processor's flag, of tokens per second in bf16 as in f32; measured with MiniLM's shape.

On 16 cores of a Xeon with AMX 92,000 against 38,000, on a Zen 4 in half the time (decision 35).
"""


def faster_compute(spec: ModelSpec, cpu: str | None = None) -> Difference | None:
    """Return what to write to have bfloat16, if this processor is measured to be faster with it.

    None for entries that say what they want, and for backends that `auto` does not hold back.

    Args:
        spec: the registry's entry.
        cpu: what Linux says about the processor; None: this machine's.
    """
    if (spec.compute, spec.precision) != ("auto", "f32"):
        return None
    gain = _gain(processor() if cpu is None else cpu)
    if gain is None or not _is_openvino(spec.backend):
        return None
    return Difference(
        key="precision",  # which is why `auto` gives float32
        message=f"{spec.name} computes in float32. In bfloat16 this processor does about {gain}"
        " tokens a second; each vector then has a cosine of about 0.9999 to what it was, and its"
        " fingerprint stays.",
        line="compute: bf16",
        purpose="have that",
    )


def _gain(cpu: str) -> str | None:
    if not bf16_is_faster(cpu):
        return None
    return next((gain for flag, gain in TOKENS_PER_SECOND.items() if flag in cpu), None)


def _is_openvino(backend: str) -> bool:
    from emberd.backends import plugins  # it imports NumPy

    return plugins.resolve(backend) == "openvino"
