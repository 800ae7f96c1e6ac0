"""Whether a model has vectors of the size and form that a request asks for."""

from typing import TYPE_CHECKING

from emberd.dtypes import columns, has_step
from emberd.errors import BadOptionError
from emberd.registry.spec import ModelSpec

if TYPE_CHECKING:
    from emberd.pool.manager import EmbedRequest


def checked_size(spec: ModelSpec, request: "EmbedRequest") -> int:
    """Return the size of the vectors that a request gets. Raises BadOptionError."""
    dimensions = request.dimensions if request.dimensions is not None else spec.dimensions
    offered = (spec.dimensions, *spec.matryoshka)
    if dimensions not in offered:
        raise BadOptionError(
            f"{spec.name} has no vectors of {dimensions} dimensions.",
            hint=f"It offers {', '.join(map(str, offered))}.",
            field="dimensions",
        )
    dtypes = (request.dtype, *(dtype for _, dtype in request.also))
    if spec.kind == "sparse":
        _refuse_forms_of_dense(spec, request)
    for dtype in dtypes:
        columns(dimensions, dtype)
    if any(map(has_step, dtypes)) and request.normalize not in (None, spec.normalize):
        raise BadOptionError(
            f"The int8 of {spec.name} is measured with normalize {spec.normalize} only.",
            hint="Leave `normalize` out, or ask for float and round the vectors yourself.",
            field="normalize",
        )
    return dimensions


def _refuse_forms_of_dense(spec: ModelSpec, request: "EmbedRequest") -> None:
    """Raise BadOptionError for a form that sparse vectors do not have."""
    is_other = request.dtype != "float" or request.also
    if is_other or request.encoding in ("base64", "raw"):
        raise BadOptionError(
            f"{spec.name} gives sparse vectors, which have only one form: JSON.",
            hint="Leave `encoding` and `output_dtype` out, and accept application/json. In Python,"
            " call `embed_sparse`.",
            field="output_dtype" if is_other else "encoding",
        )
