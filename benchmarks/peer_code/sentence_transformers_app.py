"""sentence-transformers behind FastAPI, as people usually write it, with the fastest JSON library.

One request computes at a time: two that share the cores are slower than one after the other.
"""

import os
from threading import Lock

import orjson
import torch
from fastapi import FastAPI, Response
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
model = SentenceTransformer(os.environ["BENCH_MODEL"], device="cpu")
model.max_seq_length = 512  # its own limit for this model is 256
one_at_a_time = Lock()
app = FastAPI()


class Body(BaseModel):
    """The body of a request."""

    texts: list[str]


@app.post("/embed")
def embed(body: Body) -> Response:
    """Return unit vectors."""
    with one_at_a_time, torch.inference_mode():
        vectors = model.encode(body.texts, normalize_embeddings=True, show_progress_bar=False)
    content = orjson.dumps({"embeddings": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the server is up."""
    return {"status": "ok"}
