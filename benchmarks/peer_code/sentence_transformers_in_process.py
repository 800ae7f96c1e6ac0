"""sentence-transformers without a server: each line of JSON in is a list of texts, out a result.

From text to unit vector, with tokenizing. On several GPUs, by its `start_multi_process_pool`, with
two equal parts for each. Times are taken here.
"""

import json
import os
import sys
import time

import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Load the model and embed what comes until stdin closes."""
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    gpus = int(os.environ.get("BENCH_GPUS", "0"))
    model = SentenceTransformer(
        os.environ["BENCH_MODEL"],
        device=os.environ["BENCH_DEVICE"],
        model_kwargs={"dtype": getattr(torch, os.environ["BENCH_DTYPE"])},
    )
    model.max_seq_length = 512
    pool = None
    if gpus > 1:
        pool = model.start_multi_process_pool([f"cuda:{number}" for number in range(gpus)])
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        in_parts = {}
        if pool and len(asked["texts"]) > asked["batch"]:
            in_parts = {"pool": pool, "chunk_size": -(-len(asked["texts"]) // (2 * gpus))}
        began_s = time.perf_counter()
        with torch.inference_mode():
            vectors = model.encode(
                asked["texts"], batch_size=asked["batch"], normalize_embeddings=True,
                show_progress_bar=False, **in_parts,
            )  # fmt: skip
        answer = {"spent_s": time.perf_counter() - began_s}
        if asked.get("vectors"):
            answer["embeddings"] = vectors.tolist()
        print(json.dumps(answer), flush=True)
    if pool:
        model.stop_multi_process_pool(pool)


if __name__ == "__main__":
    main()
