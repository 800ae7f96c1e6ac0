"""Whether a request can be served: how much it asks for, and whether its model has such vectors."""

from emberd.dtypes import columns, has_step
from emberd.errors import BadOptionError, NoTextsError, TooLargeError
from emberd.pool.request import EmbedRequest
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec


def checked_count(request: EmbedRequest, most: int) -> int:
    """Return how many texts a request has. Raises NoTextsError and TooLargeError."""
    count = len(request.texts)
    if not count:
        raise NoTextsError("No texts provided", hint="Send at least one text.")
    if count > most:
        raise TooLargeError(
            f"{count} texts are too many: a request may have {most}.",
            hint="Send them in several requests, or raise limits.max_texts.",
        )
    return count


def checked_size(spec: ModelSpec, request: EmbedRequest) -> int:
    """Return the size of the vectors that a request gets. Raises BadOptionError."""
    dimensions = request.dimensions if request.dimensions is not None else spec.dimensions
    offered = (spec.dimensions, *spec.matryoshka)
    if dimensions not in offered:
        raise BadOptionError(
            f"{spec.name} has no vectors of {dimensions} dimensions.",
            hint=f"It offers {', '.join(map(str, offered))}.",
            field="dimensions",
        )
    if spec.kind == "sparse":
        _refuse_forms_of_dense(spec, request)
    for dtype in request.dtypes:
        columns(dimensions, dtype)
    if any(map(has_step, request.dtypes)) and request.normalize not in (None, spec.normalize):
        raise BadOptionError(
            f"The int8 of {spec.name} is measured with normalize {spec.normalize} only.",
            hint="Leave `normalize` out, or ask for float and round the vectors yourself.",
            field="normalize",
        )
    return dimensions


def _refuse_forms_of_dense(spec: ModelSpec, request: EmbedRequest) -> None:
    """Raise BadOptionError for a form that sparse vectors do not have."""
    is_other = request.dtype != "float" or request.also
    if is_other or request.encoding in ("base64", "raw"):
        raise BadOptionError(
            f"{spec.name} gives sparse vectors, which have only one form: JSON.",
            hint="Leave `encoding` and `output_dtype` out, and accept application/json. In Python,"
            " call `embed_sparse`.",
            field="output_dtype" if is_other else "encoding",
        )


def check_late(spec: ModelSpec, catalog: Catalog) -> None:
    """Raise BadOptionError unless the vector of a text is the mean of its tokens, as of a chunk."""
    if _takes_means(spec):
        return
    able = sorted(filter(_takes_means, catalog), key=lambda each: each.max_tokens or 0)
    raise BadOptionError(
        f"chunk.late: {spec.name} has pooling {spec.pooling}; late chunking needs a model of kind"
        " embed with pooling mean.",
        hint=f"Use such a model, for example {able[-1].name}, or leave `late` out."
        if able
        else "Leave `late` out.",
        field="late",
    )


def _takes_means(spec: ModelSpec) -> bool:
    return spec.kind == "embed" and spec.pooling == "mean"
