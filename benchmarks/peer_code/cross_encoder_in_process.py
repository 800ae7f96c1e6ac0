"""CrossEncoder without a server: each line of JSON in is a query and texts, out how long it took.

From texts to scores, with tokenizing. Times are taken here.
"""

import json
import os
import sys
import time
from importlib.metadata import version

import torch
from sentence_transformers import CrossEncoder

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
model = CrossEncoder(
    os.environ["BENCH_MODEL"],
    max_length=512,
    device="cpu",
    activation_fn=torch.nn.Identity(),
    model_kwargs={"dtype": getattr(torch, os.environ["BENCH_DTYPE"])},
)
versions = {name: version(name) for name in ("sentence-transformers", "transformers", "torch")}
print(json.dumps({"versions": versions}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    pairs = [(asked["query"], text) for text in asked["texts"]]
    began_s = time.perf_counter()
    logits = model.predict(pairs, batch_size=asked["batch"], show_progress_bar=False)
    answer = {"spent_s": time.perf_counter() - began_s, "logits": [float(each) for each in logits]}
    print(json.dumps(answer), flush=True)
