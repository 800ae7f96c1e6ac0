"""Late chunking: a text is read whole, and each of its chunks gets the mean of its own tokens.

Source: arXiv:2409.04701. Such a text is alone in its batch, and shared with nobody.
"""

from collections.abc import Sequence

from emberd.errors import BadOptionError, TextTooLongError
from emberd.worker.tokenizer import Tokenizer, Tokens
from emberd.worker.wire import Embed


def encode(
    request: Embed, indices: Sequence[int], tokenizer: Tokenizer, *, pools_chunks: bool
) -> list[Tokens]:
    """Tokenize texts of a request with `spans`, whose `Tokens` then have `chunks`.

    Raises:
        BadOptionError: the encoder has not `pools_chunks`.
        TextTooLongError: the model would not see all of a text.
        NoTokensError: a chunk has no token.
    """
    if not pools_chunks:
        raise BadOptionError(
            "chunk.late: the model's backend cannot take the means of chunks.",
            hint="Choose another `backend` for it, or leave `late` out.",
            field="late",
        )
    found = []
    for index in indices:
        text = request.texts[index]
        tokens = tokenizer.encode_chunks(text, request.prompt, request.spans[index])
        if tokens.is_cut:  # texts without chunks were left out, so its index would mislead
            raise TextTooLongError(
                f"A text of {len(text)} characters has {tokens.uncut} tokens; late chunking reads"
                f" texts whole, and the model takes {len(tokens.ids)}.",
                hint="Divide the text, or leave `late` out: then each chunk is read by itself.",
            )
        found.append(tokens)
    return found
