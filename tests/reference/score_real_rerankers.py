"""What emberd makes of the pairs of `check_real_rerankers.py`, which runs this with its Python.

    score_real_rerankers.py FOLDER BACKEND POOLING COMPUTE

FOLDER holds a re-ranker and `pairs.json`. Printed are the logits of each pair `alone`, in padded
`batches`, and `packed` (several pairs in a row), all in the order of the pairs, how many pairs were
`cut`, and how many `tokens` they have together; `{}` if there is no such arithmetic here.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import cast, get_args

import numpy as np
from encode_real_sizes import load_backend, rows_of

from emberd.backends.base import Compute, LoadRequest, Pooling
from emberd.errors import EmberdError
from emberd.vectors import Matrix
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokenizer

BATCH = 8


def main(folder: Path, backend: str, pooling: str, compute: str) -> None:
    """Score, and print."""
    assert pooling in get_args(Pooling) and compute in get_args(Compute)
    given = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    limit = given["limit"]
    tokens = Tokenizer(folder, limit, pairs=True).encode_pairs(given["query"], given["texts"])
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        request = LoadRequest(
            folder=folder,
            kind="rerank",
            pooling=cast("Pooling", pooling),
            precision="f32",
            compute=cast("Compute", compute),
            cache=Path(cache),
            cache_key="real",
        )
        try:
            encoder = load_backend(backend).load(request)
        except EmberdError:
            if compute == "f32":
                raise
            sys.stdout.write("{}\n")
            return
        lengths = [len(each.ids) for each in tokens]
        found: dict[str, object] = {
            "cut": sum(each.is_cut for each in tokens),
            "tokens": sum(lengths),
        }
        if compute == "f32":
            alone = [encoder.encode(*pad([each], pairs=True)) for each in tokens]
            found["alone"] = _listed(np.concatenate(alone))
            rows = rows_of(lengths, limit)
            packed = pad_rows([[tokens[place] for place in row] for row in rows], limit, pairs=True)
            order = np.argsort(np.concatenate(rows))
            found["packed"] = _listed(encoder.encode(*packed)[order])
        batches = [tokens[at : at + BATCH] for at in range(0, len(tokens), BATCH)]
        together = [encoder.encode(*pad(batch, pairs=True)) for batch in batches]
        found["batches"] = _listed(np.concatenate(together))
    sys.stdout.write(json.dumps(found) + "\n")


def _listed(logits: Matrix) -> list[float]:
    assert logits.shape[1] == 1
    return [float(each) for each in logits[:, 0]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
