"""Sparse vectors in the dialect of text-embeddings-inference: `POST /embed_sparse`.

A model of kind `sparse` gives them in the native dialect, too: `POST /embed`, as `SparseVector`.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import PromptType, RequestBody, Texts, Truncate
from emberd.api.openapi import EMBEDDING, ResponseBody, TEIError, fails, gives, schema, takes
from emberd.api.routes import Router
from emberd.api.tei import refuse_left
from emberd.pool.manager import Pool
from emberd.pool.request import EmbedRequest


class TEIEmbedSparseBody(RequestBody):
    """What `POST /embed_sparse` takes."""

    inputs: Texts = Field(description="A text or a list of texts.")
    model: str | None = Field(
        None, description="Name or alias of a sparse model; null: `default_sparse`."
    )  # not in TEI
    truncate: Truncate = Field(True, description="Cut texts that are too long; false refuses them.")
    truncation_direction: (
        Annotated[Literal["right", "Right"], BeforeValidator(refuse_left)] | None
    ) = None
    prompt_name: PromptType = Field(
        None, description="`query` or `document`: which of the model's prompts to use, and whether"
        " to look the texts up, if the model does that with queries.",
    )  # fmt: skip


class TEISparseValue(ResponseBody):
    """An entry of the vocabulary, and its number, which is not 0."""

    index: int
    value: float


class SparseVector(ResponseBody):
    """What is not 0: entries of the vocabulary, ascending, and their numbers."""

    indices: list[int]
    values: list[float]


PAIRS: dict[str, Any] = {
    "type": "array",
    "items": {"type": "array", "items": schema(TEISparseValue)},
}


def create_router(pool: Pool) -> Router:
    """Return the route over one pool."""
    router = Router(tags=["TEI"])

    @router.post(
        "/embed_sparse",
        openapi_extra=takes(
            TEIEmbedSparseBody,
            {"inputs": ["first text", "second text"]},
            {"inputs": "what is it about?", "prompt_name": "query"},
            embeds=True,
        ),
        responses=gives(PAIRS, "One sparse vector for each text, in order.", embeds=True)
        | fails(TEIError, EMBEDDING),
    )
    async def embed_sparse(request: Request) -> Response:
        """Turn texts into sparse vectors; loads the model if needed."""
        asked = await body.read(request, TEIEmbedSparseBody, pool.limits.max_body)
        answer = await exchange.embed(
            request,
            pool,
            EmbedRequest(
                texts=asked.inputs,
                model=asked.model,
                input_type=asked.prompt_name,
                truncate=asked.truncate,
                takes=("sparse",),
                pairs=True,
            ),
        )
        return answers.respond(answer, answers.as_array(answer))

    return router
