"""llama.cpp without a server: each line of JSON in is a command, each out a result.

Texts are the numbers of their tokens; a batch is as many texts as asked for, without padding. The
checkpoint is converted to GGUF first. Times are taken here: from batches of tokens, which are in
llama.cpp's own memory by then, to unit vectors.
"""

import ctypes
import json
import os
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import llama_cpp
import numpy as np
import to_gguf

THREADS = int(os.environ["BENCH_THREADS"])
ERROR = 4  # GGML_LOG_LEVEL_ERROR of ggml.h


@llama_cpp.llama_log_callback
def log_errors(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    """Write what went wrong to stderr, and nothing else."""
    if level == ERROR:
        sys.stderr.write(text.decode())


def load(folder: Path, stored: str):  # noqa: ANN201
    """Convert a checkpoint and load it."""
    with tempfile.TemporaryDirectory(prefix="emberd-gguf-") as scratch:
        file = Path(scratch, "model.gguf")
        to_gguf.write(folder, file, stored)
        wanted = llama_cpp.llama_model_default_params()
        found = llama_cpp.llama_model_load_from_file(str(file).encode(), wanted)
    if not found:
        sys.exit("llama.cpp could not load the model")
    return found


class Batches:
    """The same texts in batches of so many, and a context that is large enough for each."""

    def __init__(self, model, texts: list[list[int]], size: int) -> None:  # noqa: ANN001
        groups = [texts[start : start + size] for start in range(0, len(texts), size)]
        most = max(sum(map(len, group)) for group in groups)
        most += -most % size  # a context for anything but a multiple of its texts aborts
        wanted = llama_cpp.llama_context_default_params()
        wanted.n_ctx = wanted.n_batch = wanted.n_ubatch = most  # encoders need all at once
        wanted.n_seq_max, wanted.kv_unified = size, True
        wanted.n_threads = wanted.n_threads_batch = THREADS
        wanted.embeddings, wanted.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_MEAN
        self._context = llama_cpp.llama_init_from_model(model, wanted)
        if not self._context:
            sys.exit("llama.cpp could not create a context")
        self._width = llama_cpp.llama_model_n_embd(model)
        self._batches = [(self._fill(group), len(group)) for group in groups]
        self.tokens = sum(map(len, texts))

    @staticmethod
    def _fill(group: list[list[int]]):  # noqa: ANN205
        batch = llama_cpp.llama_batch_init(sum(map(len, group)), 0, 1)
        batch.n_tokens = 0
        for number, text in enumerate(group):
            for place, token in enumerate(text):
                at = batch.n_tokens
                batch.token[at], batch.pos[at], batch.logits[at] = token, place, True
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, number
                batch.n_tokens += 1
        return batch

    def vectors(self):  # noqa: ANN201
        """Return unit vectors, `(N, D)`."""
        rows = []
        for batch, count in self._batches:
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
            if llama_cpp.llama_decode(self._context, batch):
                sys.exit("llama.cpp could not compute a batch")
            for number in range(count):
                row = llama_cpp.llama_get_embeddings_seq(self._context, number)
                rows.append(np.ctypeslib.as_array(row, (self._width,)).copy())
        found = np.stack(rows)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def main() -> None:
    """Run commands until stdin closes."""
    llama_cpp.llama_log_set(log_errors, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = load(Path(os.environ["BENCH_MODEL"]), os.environ["BENCH_DTYPE"])
    print(json.dumps({"llama-cpp-python": version("llama-cpp-python")}), flush=True)
    kept: dict[str, Batches] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = f"{asked['batch']} {asked['texts']}"
        if key not in kept:
            texts = [list(map(int, text.split())) for text in asked["texts"]]
            kept[key] = Batches(model, texts, asked["batch"])
        batches, tokens = kept[key], 0
        began_s = time.perf_counter()
        while True:
            vectors = batches.vectors()
            tokens += batches.tokens
            spent_s = time.perf_counter() - began_s
            if spent_s >= asked["seconds"]:
                break
        answer = {"tokens_per_s": tokens / spent_s}
        if asked.get("vectors"):
            answer["embeddings"] = vectors.tolist()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
