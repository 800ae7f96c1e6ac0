"""`scripts/bench --architectures`: one layer of each kind, really run, on two texts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import architectures
import architectures_report
import behind
import encoders
import pytest

from emberd.backends.architectures.native import NATIVE, name_of
from emberd.backends.config import ModelConfig

RUN = str(Path(architectures.__file__))


@pytest.mark.slow
def test_emberd_takes_part_in_its_arithmetics_beside_the_best_products(tmp_path: Path) -> None:
    target = tmp_path / "architectures.json"
    only = "modernbert,model2vec"
    command = [sys.executable, RUN, "--quick", "--only", only, "--json", str(target)]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.DEVNULL)

    results = json.loads(target.read_text())

    assert list(results["models"]) == only.split(",")
    for name, found in results["models"].items():
        assert found["kinds"].keys() == {"passages", "long"}
        assert found["check"]["emberd, f32"] > 0.9999
        for kind in found["kinds"].values():
            assert kind["tokens_per_s"]["emberd, f32"][0] > 0
            assert ("f32" in kind["best_gflop_per_s"]) == (name != "model2vec")
    for peer in ("transformers, torch", "llama.cpp"):
        assert peer in results["missing"] or peer in results["versions"]


def test_every_architecture_has_a_model() -> None:
    kinds = {name_of(ModelConfig(Path(), model.config)) for model in encoders.MODELS.values()}

    assert kinds == NATIVE - {"new"}  # which is another name for gte


def test_operations_of_attention_are_those_of_the_pairs_that_see_each_other() -> None:
    model = encoders.Model(like="", config={}, layers=3, width=1, local=2, within=1)
    causal = encoders.Model(like="", config={}, layers=1, width=1, is_causal=True)

    assert model.attention_flop(4) == 4 * (16 + 2 * 10)
    assert causal.attention_flop(4) == 4 * 10


def a_run(*, hidden_size: int, torch: float) -> dict[str, Any]:
    """Return a run in which emberd computes 1,000 tokens a second at half of the best product."""
    kind = {
        "gflop_per_token": 0.5,
        "mean_tokens": 99.0,
        "tokens_per_s": {
            "emberd, bf16": [1000.0, 2000.0, 900.0],
            "emberd, f32": [500.0, 500.0, 500.0],
            "transformers, torch, bf16": [2000.0, 4000.0, 1800.0],
            "transformers, torch, f32": [torch, 2 * torch, 0.9 * torch],
            "llama.cpp, f16": [400.0, 800.0, 360.0],
            "llama.cpp, f32": [800.0, 1600.0, 720.0],
        },
        "best_gflop_per_s": {"bf16": [1000.0, 2000.0, 900.0], "f32": [300.0, 300.0, 300.0]},
    }
    model = {
        "like": "some/model", "hidden_size": hidden_size, "layers": 6, "of_layers": 28,
        "check": {}, "kinds": {"passages": kind},
    }  # fmt: skip
    return {
        "compute": "bf16",
        "models": {"bert": model},
        "machine": {"processor": "a processor", "processors": 2},
    }


def test_the_table_has_the_ratios_of_each_round_and_marks_what_misses_a_goal() -> None:
    small = architectures_report.table(a_run(hidden_size=384, torch=500.0))
    large = architectures_report.table(a_run(hidden_size=768, torch=500.0))

    assert small.splitlines()[-1] == (
        "| bert, passages | some/model, 6 of 28 layers of 384 | 1,000 | **50%** | **0.5 ×**"
        " | **2.0 ×** | 1.2 × | 500 | 83% | 1.0 × | 0.6 × |"
    )
    assert "| 2.0 × | 1.2 × | 500 |" in large


def test_a_faster_torch_is_among_the_figures_in_which_emberd_is_behind() -> None:
    found = list(behind.of_architectures(a_run(hidden_size=768, torch=500.0)))

    assert [figure.other for figure in found if figure.times > 1] == ["transformers, torch, bf16"]
