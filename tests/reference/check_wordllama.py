"""Real weights of a static model: emberd gives the vectors of WordLlama's own formula.

For developers; the wheel is not a requirement, since it is compiled for each Python:

    pip download --no-deps wordllama
    .venv/bin/python tests/reference/check_wordllama.py wordllama-*.whl

Only two of its files are read, the table and the tokenizer; nothing of it is installed or run. Its
vectors are the means of the texts' token vectors, without special tokens (`wordllama/inference.py`,
0.4). It leaves unknown tokens in and emberd takes them out, as model2vec does: none of these texts
has any.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load
from tokenizers import Tokenizer as Library

from emberd.backends.base import LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.folder.reading import read_folder
from emberd.vectors import lowest_cosine
from emberd.worker.padding import pad
from emberd.worker.tokenizer import Tokenizer

TABLE = "wordllama/weights/l2_supercat_256.safetensors"
TOKENIZER = "wordllama/tokenizers/l2_supercat_tokenizer_config.json"
LOWEST = 0.99999


def main(wheel: Path) -> None:
    """Compare, and print the lowest cosine.

    Raises:
        SystemExit: the vectors differ.
    """
    sentences = json.loads(Path(__file__).with_name("sentences.json").read_text(encoding="utf-8"))
    texts = [each["text"] for each in sentences if each["text"]]
    with zipfile.ZipFile(wheel) as files, tempfile.TemporaryDirectory() as scratch:
        table, tokenizer = files.read(TABLE), files.read(TOKENIZER)
        folder = Path(scratch, "wordllama")
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(table)
        (folder / "tokenizer.json").write_bytes(tokenizer)
        (folder / "config.json").write_text('{"model_type": "model2vec"}')
        request = LoadRequest(
            folder=folder,
            pooling="mean",
            precision="f32",
            compute="f32",
            cache=Path(scratch, "cache"),
            cache_key="wordllama",
        )
        tokens = Tokenizer(folder, 1024, only_known=read_folder(folder).only_known).encode(texts)
        ours = OpenVINOBackend().load(request).encode(*pad(tokens))
    values = load(table)["embedding.weight"].astype(np.float32)
    library = Library.from_str(tokenizer.decode())
    encodings = library.encode_batch(texts, add_special_tokens=False)
    theirs = np.stack([values[each.ids].mean(axis=0) for each in encodings])
    lowest = lowest_cosine(ours, theirs)
    longest = max(len(each.ids) for each in encodings)
    sys.stdout.write(f"{len(texts)} texts of up to {longest} tokens: lowest cosine {lowest}\n")
    if lowest < LOWEST:
        raise SystemExit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
