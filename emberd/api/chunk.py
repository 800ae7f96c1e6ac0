"""`POST /chunk`: long texts are cut into chunks; and how a request says where to cut."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import orjson
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from emberd.api import answers, body, exchange
from emberd.api.fields import ModelName, PromptType, RequestBody, StrictTexts
from emberd.api.openapi import EMBEDDING, NativeError, ResponseBody, fails, gives, takes
from emberd.api.routes import Router
from emberd.dtypes import Dtype
from emberd.errors import BadOptionError
from emberd.pool.chunks import embed_chunks
from emberd.pool.request import EmbedRequest
from emberd.pool.surface import PoolSurface
from emberd.spaces.chunks import GRAMMARS, Chunking, ChunkKind

Language = Annotated[str, WithJsonSchema({"type": "string", "enum": sorted(GRAMMARS)})]


class ChunkOptions(RequestBody):
    """How to cut texts into chunks.

    Unknown keys are refused: with a mistyped one, texts would be cut elsewhere.
    """

    model_config = ConfigDict(extra="forbid")

    kind: ChunkKind = Field("text", description="What the texts are: where they are best cut.")
    language: Language | None = Field(None, description="The programming language of kind code.")
    size: int | None = Field(
        None, ge=1, description="The most tokens of a chunk; null: as many as the model takes."
    )
    overlap: int = Field(
        0, ge=0, description="The most tokens that a chunk repeats of the one before."
    )

    def chunking(self) -> Chunking:
        """Return what the request asks for. Raises BadOptionError."""
        if self.kind == "code" and self.language not in GRAMMARS:
            what = f"{self.language!r:.64} is not known" if self.language else "is missing"
            raise BadOptionError(
                f"The language of the code {what}.",
                hint=f"Send one of {', '.join(sorted(GRAMMARS))}, or chunk it as kind text.",
                field="language",
            )
        if self.kind != "code" and self.language is not None:
            raise BadOptionError(
                f"chunk.language: texts of kind {self.kind} have none.",
                hint="Send kind code with it, or leave it out.",
                field="language",
            )
        return Chunking(
            kind=self.kind, language=self.language, size=self.size, overlap=self.overlap
        )


class EmbedChunkOptions(ChunkOptions):
    """How to cut texts into chunks, and what the model reads for the vector of one."""

    late: bool = Field(
        False,
        description="Late chunking: the model reads each text whole, and a chunk's vector is the"
        " mean of its tokens. For models with pooling mean, and texts up to their `max_tokens`.",
    )


class ChunkBody(ChunkOptions):
    """What `POST /chunk` takes."""

    texts: StrictTexts = Field(
        description="The texts to cut, in order.", json_schema_extra={"minItems": 1}
    )
    model: ModelName = None
    input_type: PromptType = Field(
        None, description="Which of the model's prompts a chunk leaves room for."
    )
    return_text: bool = Field(False, description="Repeat the text of each chunk.")
    fingerprint: str | None = Field(None, description="The expected space; another gives 409.")


class ChunkSettings(ResponseBody):
    """How texts were cut: as `chunk` it cuts others in the same way, whatever the model takes."""

    size: int
    overlap: int
    kind: ChunkKind
    language: str | None


class EmbedChunkSettings(ChunkSettings):
    """How the texts of `POST /embed` were cut, and whether vectors are those of late chunking."""

    late: bool


class ChunkPlace(ResponseBody):
    """A chunk: `start` and `end` in characters (code points) of its text, and in UTF-16 units.

    `tokens` is without special ones and prompt. Beside a chunk there is only white space.
    """

    start: int
    end: int
    start_utf16: int
    end_utf16: int
    tokens: int
    text: str | None = None


class ChunkUsage(ResponseBody):
    """The tokens of all chunks, without special ones."""

    tokens: int


class ChunkAnswer(ChunkSettings):
    """What `POST /chunk` answers: for each text its chunks; none if it has only white space.

    `size` is the most tokens that they could have.
    """

    chunks: list[list[ChunkPlace]]
    model: str
    fingerprint: str
    usage: ChunkUsage


class EmbeddedChunk(ChunkPlace):
    """A chunk, and the place of its text in the request."""

    text: int  # type: ignore[assignment]


async def embed(
    request: Request,
    pool: PoolSurface,
    asked: EmbedRequest,
    form: answers.Format,
    dtype: Dtype | None = None,
) -> Response:
    """Answer a `POST /embed` that has `chunk`: a vector for each chunk.

    `dtype` is the one that the request names.
    """
    if form != "json":
        raise BadOptionError(
            "chunk: the places of chunks have no room beside raw vectors.",
            hint="Ask for JSON, with `encoding: base64` to save bytes; or ask POST /chunk for the"
            " chunks and embed their texts.",
            field="chunk",
        )
    most = pool.limits.max_texts
    found = await embed_chunks(partial(exchange.embed, request, pool), asked, most=most)
    settings = settings_of(asked.chunking, found.size) | {"late": asked.spans is not None}
    chunking = orjson.dumps(settings)
    return answers.embed_response(found.answer, form, dtype, chunks=found.places, chunking=chunking)


def settings_of(chunking: Chunking, size: int) -> dict[str, Any]:
    """Return the `ChunkSettings` of an answer; `size` is the one that texts were cut with."""
    return {
        "size": size,
        "overlap": chunking.overlap,
        "kind": chunking.kind,
        "language": chunking.language,
    }


def create_router(pool: PoolSurface) -> Router:
    """Return the route over one pool."""
    router = Router()

    @router.post(
        "/chunk",
        openapi_extra=takes(
            ChunkBody,
            {"texts": ["A long text. It goes on."], "size": 200, "overlap": 20},
            {"texts": ["# Title\n\nSome text."], "kind": "markdown", "return_text": True},
            embeds=True,
        ),
        responses=gives(ChunkAnswer, "The chunks of each text, in order.", embeds=True)
        | fails(NativeError, EMBEDDING),
    )
    async def chunk(request: Request) -> Response:
        """Cut texts into chunks that the model takes; loads the model if needed."""
        asked = await body.read(request, ChunkBody, pool.limits.max_body)
        chunking = replace(asked.chunking(), with_text=asked.return_text)
        answer = await exchange.embed(
            request,
            pool,
            EmbedRequest(
                texts=asked.texts,
                model=asked.model,
                input_type=asked.input_type,
                description="chunks",
                chunking=chunking,
                fingerprint=asked.fingerprint,
                takes=("embed", "sparse"),
            ),
        )
        rest: dict[str, Any] = {
            **settings_of(chunking, answer.chunk_size),
            "model": answer.model,
            "fingerprint": answer.fingerprint,
            "usage": {"tokens": answer.tokens},
        }
        closing = b"]," + orjson.dumps(rest)[1:]
        given = answers.enclosed(b'{"chunks":[', answer.fragments, closing)
        return answers.respond(answer, given)

    return router
