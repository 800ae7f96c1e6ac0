"""What emberd makes of the texts of `check_real_sizes.py`, which runs this with emberd's Python.

    encode_real_sizes.py FOLDER BACKEND PRECISION POOLING LIMIT LONGEST VECTORS

FOLDER holds a checkpoint and `texts.json`, lists of token ids; those of more than LONGEST tokens
are left out. No row has more than LIMIT. VECTORS, a file to write, gets the vectors of `alone`,
`batch` (padded) and `packed` (several texts in a row), and for each of these the number of the text
that each row is of. Printed is what the longest text takes above the memory of the idle encoder, in
MiB.
"""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

import numpy as np

from emberd.backends.base import Backend, LoadRequest, Pooling, Precision
from emberd.vectors import Matrix
from emberd.worker.padding import pad, pad_rows
from emberd.worker.tokenizer import Tokens

MOST_PADDED = 200
"""Longer texts are not in the padded batch, most of which would be padding."""
MOST_PACKED = 600
"""Longer texts are not in the rows of several texts."""
ROW_TOKENS = 1200


def load_backend(name: str) -> Backend:
    """Return the backend of that name."""
    if name == "mlx":
        from emberd.backends.mlx.backend import MLXBackend

        return MLXBackend()
    from emberd.backends.openvino.backend import OpenVINOBackend

    return OpenVINOBackend()


def rows_of(lengths: list[int], width: int) -> list[list[int]]:
    """Fill rows of at most `width` tokens with texts, long and short ones next to each other."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    mixed = [
        order[-1 - place // 2] if place % 2 else order[place // 2] for place in range(len(order))
    ]
    rows: list[list[int]] = [[]]
    for text in mixed:
        if sum(lengths[other] for other in rows[-1]) + lengths[text] > width:
            rows.append([])
        rows[-1].append(text)
    return rows


def memory() -> int:
    """Return the bytes of this process that are not pages of files."""
    fields = Path("/proc/self/status").read_text(encoding="ascii").split()
    return int(fields[fields.index("RssAnon:") + 1]) * 1024


def peak_above(run: Callable[[], object]) -> float:
    """Return the MiB that a call takes at its peak, above what was there before."""
    before, peaks, done = memory(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peaks[0] = max(peaks[0], memory())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (peaks[0] - before) / 2**20


def main(
    folder: Path,
    backend: str,
    precision: str,
    pooling: str,
    limit: int,
    longest: int,
    vectors: Path,
) -> None:
    """Encode, write the vectors, and print the memory."""
    assert pooling in get_args(Pooling) and precision in get_args(Precision)
    ids = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    texts = [Tokens(each, 0) for each in ids if len(each) <= longest]
    lengths = [len(text.ids) for text in texts]
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        request = LoadRequest(
            folder=folder,
            pooling=cast("Pooling", pooling),
            precision=cast("Precision", precision),
            compute="f32",
            cache=Path(cache),
            cache_key="real",
        )
        encoder = load_backend(backend).load(request)
        alone: list[Matrix] = [encoder.encode(*pad([text])) for text in texts[:-1]]
        peak = peak_above(lambda: alone.append(encoder.encode(*pad(texts[-1:]))))
        found = {"alone": np.concatenate(alone), "alone_texts": np.arange(len(texts))}
        short = sum(length <= MOST_PADDED for length in lengths)  # they come in order
        found["batch"] = encoder.encode(*pad(texts[:short]))
        found["batch_texts"] = np.arange(short)
        some = [length for length in lengths if length <= MOST_PACKED]
        rows = rows_of(some, min(ROW_TOKENS, limit))
        width = max(sum(lengths[place] for place in row) for row in rows)
        packed = [[texts[place] for place in row] for row in rows]
        found["packed"] = encoder.encode(*pad_rows(packed, width))
        found["packed_texts"] = np.concatenate(rows)
        np.savez(vectors, **found)
    sys.stdout.write(json.dumps({"peak_mib": round(peak)}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5], *map(int, sys.argv[5:7]), Path(sys.argv[7]))
