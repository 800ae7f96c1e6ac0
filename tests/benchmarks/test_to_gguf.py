"""The converter to llama.cpp's format: what it says of each model, and the vectors that result."""

import json
import sys
from pathlib import Path

import architectures
import checks
import encoders
import environments
import gguf
import made
import numpy as np
import pytest
import turns
from encoders import LLAMA, MODELS
from peer_code import to_gguf
from safetensors.numpy import load_file

from emberd.backends.tiny_bert import tiny_bert

PYTHON = environments.CACHE / "llama-cpp" / "bin" / "python"
THEIRS = {name: model for name, model in MODELS.items() if LLAMA not in model.lacking}
LENGTHS = (3, 40, 600)  # the last is longer than what a local layer sees


def test_llama_cpp_takes_part_for_each_model_whose_architecture_it_has() -> None:
    found = {}
    for name, model in THEIRS.items():
        found[name] = to_gguf.architecture(model.config)

    assert found == {
        "bert (MiniLM)": "bert",
        "bert": "bert",
        "distilbert": "bert",
        "roberta": "bert",
        "xlm-roberta": "bert",
        "nomic_bert": "nomic-bert",
        "jina_bert": "jina-bert-v2",
        "modernbert": "modern-bert",
        "t5": "t5encoder",
        "gemma3_text": "gemma-embedding",
        "qwen3": "qwen3",
    }
    for name in MODELS.keys() - THEIRS.keys():
        with pytest.raises(KeyError):
            to_gguf.architecture(MODELS[name].config)


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_said_of_a_model_is_what_its_config_says(name: str) -> None:
    model = THEIRS[name]

    said = to_gguf.facts(model.config | {"vocab_size": 9})

    kind = said["general.architecture"]
    assert said[f"{kind}.vocab_size"] == 9
    assert said[f"{kind}.embedding_length"] == model.hidden_size
    assert said[f"{kind}.block_count"] == model.layers
    assert said[f"{kind}.attention.causal"] == model.is_causal
    width = said[f"{kind}.attention.head_count"] * said.get(
        f"{kind}.attention.key_length", model.hidden_size // said[f"{kind}.attention.head_count"]
    )
    assert width == model.width
    pattern = said.get(f"{kind}.attention.sliding_window_pattern", [])
    assert sum(pattern) == model.local
    if model.local:
        assert said[f"{kind}.attention.sliding_window"] == 2 * model.within
    epsilons = [value for key, value in said.items() if key.endswith("epsilon")]
    assert len(epsilons) == 1
    assert 0 < epsilons[0] < 1e-4


def test_a_robertas_table_of_positions_begins_where_its_texts_do() -> None:
    config = MODELS["roberta"].config | {"vocab_size": 9}
    table = np.arange(514 * 2).reshape(514, 2)

    rows = to_gguf.values(config, "embeddings.position_embeddings.weight", table)

    assert rows[0].tolist() == [4, 5]  # after that of padding, 1
    assert len(rows) == to_gguf.facts(config)["bert.context_length"] == 512


def test_gemmas_norms_are_around_one() -> None:
    gemma, qwen = MODELS["gemma3_text"].config, MODELS["qwen3"].config
    tensor = np.zeros(2)

    assert to_gguf.values(gemma, "layers.0.input_layernorm.weight", tensor).tolist() == [1, 1]
    assert to_gguf.values(gemma, "norm.weight", tensor).tolist() == [1, 1]
    assert to_gguf.values(gemma, "layers.0.mlp.up_proj.weight", tensor).tolist() == [0, 0]
    assert to_gguf.values(qwen, "norm.weight", tensor).tolist() == [0, 0]


def test_a_file_has_what_is_said_of_the_model_and_all_its_tensors(tmp_path: Path) -> None:
    tiny_bert(tmp_path / "tiny")
    config = json.loads((tmp_path / "tiny/config.json").read_text())
    tensors = load_file(tmp_path / "tiny/model.safetensors")

    to_gguf.write(tmp_path / "tiny", tmp_path / "model.gguf", "f16")

    file = gguf.GGUFReader(tmp_path / "model.gguf")
    for key, value in to_gguf.facts(config).items():
        assert file.fields[key].contents() == pytest.approx(value), key
    found = {tensor.name: tensor for tensor in file.tensors}
    assert len(found) == len(tensors)
    query = tensors["encoder.layer.1.attention.self.query.weight"]
    bias = tensors["encoder.layer.1.attention.self.query.bias"]
    assert found["blk.1.attn_q.weight"].data.tolist() == query.astype(np.float16).tolist()
    assert found["blk.1.attn_q.bias"].data.tolist() == bias.tolist()


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="scripts/bench has not made llama.cpp yet")
@pytest.mark.parametrize("name", THEIRS)
def test_llama_cpp_computes_the_vectors_of_emberd(name: str, tmp_path: Path) -> None:
    model = THEIRS[name].shallow()
    written = encoders.write(model, tmp_path / "model")
    home = made.home(
        tmp_path / "home", written.folder, compute="f32", backend="openvino",
        max_tokens=model.max_tokens,
    )  # fmt: skip
    texts = encoders.texts([min(length, model.max_tokens) for length in LENGTHS])
    here = Path(architectures.__file__).parent
    own = [sys.executable, str(here / "engine.py"), str(home), made.NAME, "1"]
    theirs = [str(PYTHON), str(here / "peer_code" / "llama_cpp_in_process.py")]
    asked = {"BENCH_MODEL": str(written.folder), "BENCH_DTYPE": "f32", "BENCH_THREADS": "1"}

    with turns.piped(own, {"PYTHONPATH": str(here.parent)}) as pipe:
        expected = pipe.ask(do="vectors", texts=texts)["embeddings"]
    with turns.piped(theirs, asked) as pipe:
        alone, together = (
            pipe.ask(texts=texts, batch=size, seconds=0, vectors=True)["embeddings"]
            for size in (1, len(texts))
        )

    least = architectures.LEAST_COSINE_OF_LLAMA
    assert checks.cosines(alone, expected)["lowest"] >= least
    assert checks.cosines(together, expected)["lowest"] >= least
