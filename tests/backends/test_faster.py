"""Which entries are told that bfloat16 would be faster here."""

from typing import Any

import pytest

from emberd.backends.faster import faster_compute
from emberd.registry.spec import ModelSpec, Source

AMX = "vendor_id: GenuineIntel\nflags: avx512_bf16 amx_tile amx_bf16\n"
ZEN_4 = "vendor_id: AuthenticAMD\nflags: avx512f avx512_bf16\n"
OTHERS = {
    "Intel without AMX": "vendor_id: GenuineIntel\nflags: avx512f avx512_bf16\n",
    "AVX2": "vendor_id: AuthenticAMD\nflags: avx2\n",
    "Arm, which was not measured": "Features: asimd bf16\n",
    "unknown": "",
}


def entry(**keys: Any) -> ModelSpec:  # noqa: ANN401 - any of an entry's
    return ModelSpec(
        **{
            "name": "mine", "sources": (Source(path="mine"),), "dimensions": 8,
            "pooling": "mean", "backend": "openvino", **keys,
        }
    )  # fmt: skip


@pytest.mark.parametrize(("cpu", "gain"), [(AMX, "2.4 times as many"), (ZEN_4, "twice as many")])
def test_an_entry_that_says_nothing_is_told_the_gain_and_the_line(cpu: str, gain: str) -> None:
    faster = faster_compute(entry(), cpu)

    assert faster
    assert f"this processor does about {gain} tokens a second" in faster.message
    assert faster.told("mine").endswith("To have that, write under models.mine: compute: bf16")


@pytest.mark.parametrize("cpu", OTHERS.values(), ids=OTHERS)
def test_a_processor_that_gains_nothing_is_left_alone(cpu: str) -> None:
    assert faster_compute(entry(), cpu) is None


@pytest.mark.parametrize(
    "keys",
    [{"compute": "f32"}, {"compute": "bf16"}, {"precision": "4bit"}, {"backend": "mlx"}],
    ids=str,
)
def test_an_entry_that_chose_is_left_alone(keys: dict[str, str]) -> None:
    assert faster_compute(entry(**keys), AMX) is None
