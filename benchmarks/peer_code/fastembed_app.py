"""fastembed behind FastAPI, with the fastest JSON library; one request computes at a time."""

from threading import Lock

import orjson
from fastapi import FastAPI, Response
from fastembed_model import embed, load
from pydantic import BaseModel

model = load()
one_at_a_time = Lock()
app = FastAPI()


class Body(BaseModel):
    """The body of a request."""

    texts: list[str]


@app.post("/embed")
def post_embed(body: Body) -> Response:
    """Return unit vectors."""
    with one_at_a_time:
        vectors = embed(model, body.texts)
    content = orjson.dumps({"embeddings": vectors}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json")


@app.get("/health")
def health() -> dict[str, str]:
    """Say that the server is up."""
    return {"status": "ok"}
