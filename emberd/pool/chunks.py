"""Chunk, then embed: a request for the vectors of long texts becomes one for those of their chunks.

The chunks' places pass through as the worker wrote them; here texts are only sliced.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import orjson

from emberd.errors import NoTextsError, TooLargeError
from emberd.pool.job import Answer
from emberd.pool.request import EmbedRequest

NO_CHUNKS = b"[]"


@dataclass(frozen=True, slots=True)
class ChunkedAnswer:
    """The vectors of chunks, and where these are.

    `places` is a JSON array with an object for each vector: `text` (the place of its text in the
    request), and what `worker.chunking` says of it. `size` is the most tokens of a chunk.
    """

    answer: Answer
    places: bytes
    size: int


async def embed_chunks(
    embed: Callable[[EmbedRequest], Awaitable[Answer]], asked: EmbedRequest, *, most: int
) -> ChunkedAnswer:
    """Embed the chunks of texts, as `asked.chunking` says, each like a text of its own.

    Args:
        embed: sends a request to the pool.
        asked: what is asked for. With `spans`, which are empty: late chunking, for which the model
            reads each text whole.
        most: how many chunks a request may have.

    Raises:
        TooLargeError: there are more.
        NoTextsError: there are none.
        EmberdError: as `embed`.
    """
    found = await embed(replace(asked, description="chunks"))
    chunked = [  # texts that have chunks, with where these are
        (text, [(place["start"], place["end"]) for place in orjson.loads(fragment)])
        for text, fragment in zip(asked.texts, found.fragments, strict=True)
        if fragment != NO_CHUNKS
    ]
    count = sum(len(spans) for _, spans in chunked)
    if count > most:
        raise TooLargeError(
            f"The texts have {count} chunks of up to {found.chunk_size} tokens: a request may"
            f" have {most}.",
            hint="Send fewer texts, a larger chunk.size, or the texts of POST /chunk in several"
            " requests; or raise limits.max_texts.",
        )
    if not count:
        raise NoTextsError(
            "The texts are only white space, which has no chunks.", hint="Leave them out."
        )
    if asked.spans is None:
        parts = [text[start:end] for text, spans in chunked for start, end in spans]
        following = replace(asked, texts=parts)
    else:
        texts, spans = zip(*chunked, strict=True)
        following = replace(asked, texts=texts, spans=spans, cache=False)
    answer = await embed(following)
    return ChunkedAnswer(answer, _with_texts(found), found.chunk_size)


def _with_texts(found: Answer) -> bytes:
    """Return the places of all chunks in one array, each with the place of its text."""
    numbered = (
        fragment[1:-1].replace(b'{"start":', b'{"text":%d,"start":' % text)
        for text, fragment in enumerate(found.fragments)
        if fragment != NO_CHUNKS
    )
    return b"[" + b",".join(numbered) + b"]"
