"""fastembed without a server: each line of JSON in is a list of texts, each line out a result.

Times are taken here, so that neither the pipe nor JSON counts.
"""

import json
import sys
import time

from fastembed_model import embed, load

model = load()
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    began_s = time.perf_counter()
    vectors = embed(model, asked["texts"], asked["batch"])
    spent_s = time.perf_counter() - began_s
    answer = {"spent_s": spent_s}
    if asked.get("vectors"):
        answer["embeddings"] = vectors.tolist()
    print(json.dumps(answer), flush=True)
