"""`scripts/bench --architectures`: each model with a single layer, really run, on two texts."""

import json
import subprocess
import sys
from pathlib import Path

import architectures
import encoders
import pytest

from emberd.backends.architectures.native import NATIVE

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
    peer = "transformers, torch"
    assert peer in results["missing"] or peer in results["versions"]


def test_every_architecture_has_a_model() -> None:
    kinds = {model.config["model_type"] for model in encoders.MODELS.values()}

    assert kinds == NATIVE - {"new"}  # which is another name for gte


def test_operations_of_attention_are_those_of_the_pairs_that_see_each_other() -> None:
    model = encoders.Model(like="", config={}, layers=3, width=1, local=2, within=1)
    causal = encoders.Model(like="", config={}, layers=1, width=1, is_causal=True)

    assert model.attention_flop(4) == 4 * (16 + 2 * 10)
    assert causal.attention_flop(4) == 4 * 10
