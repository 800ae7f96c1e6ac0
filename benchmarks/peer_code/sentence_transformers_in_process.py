"""sentence-transformers without a server: each line of JSON in is a list of texts, out a result.

From text to unit vector, with tokenizing. Times are taken here.
"""

import json
import os
import sys
import time

import torch
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
model = SentenceTransformer(
    os.environ["BENCH_MODEL"],
    device=os.environ["BENCH_DEVICE"],
    model_kwargs={"dtype": getattr(torch, os.environ["BENCH_DTYPE"])},
)
model.max_seq_length = 512
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began_s = time.perf_counter()
    with torch.inference_mode():
        vectors = model.encode(
            asked["texts"], batch_size=asked["batch"], normalize_embeddings=True,
            show_progress_bar=False,
        )  # fmt: skip
    answer = {"spent_s": time.perf_counter() - began_s}
    if asked.get("vectors"):
        answer["embeddings"] = vectors.tolist()
    print(json.dumps(answer), flush=True)
