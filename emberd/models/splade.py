"""What the files of a sparse model say: how token scores become one vector, and where queries go.

The formats are those of sentence-transformers 6.2 (`sparse_encoder/modules/`, `base/modules/
router.py`), of OpenSearch's `idf.json`, and of FlagEmbedding's `sparse_linear`.
"""

from dataclasses import dataclass
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.files import is_file
from emberd.models.json_files import read_object, read_optional
from emberd.models.modules import Step, old_layout, read_steps, step_of

TABLE = "idf.json"  # token -> weight
TOKEN_WEIGHTS = "sparse_linear.safetensors"  # noqa: S105 - no secret
PICKLED_WEIGHTS = "sparse_linear.pt"
_ENCODERS = {"Transformer", "MLMTransformer"}
_CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file;'
    " save_file(torch.load('sparse_linear.pt', weights_only=True), 'sparse_linear.safetensors')\""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Splade:
    """What the files say.

    Attributes:
        logs: how often the logarithm is applied: 1, or 2 (`log1p_relu`, arXiv:2504.14839).
        queries: the file of a table that gives the tokens of queries their weights, safetensors or
            JSON; None if queries go through the encoder, too.
        stated_by: the file that says so, relative to the folder; empty if none does.
    """

    logs: int = 1
    queries: Path | None = None
    stated_by: str = ""


def has_token_weights(folder: Path) -> bool:
    """Whether each token's weight is a linear layer of its vector, as in BGE-M3.

    Raises:
        ModelLoadError: there is such a layer, but as a pickle.
    """
    if is_file(folder / TOKEN_WEIGHTS):
        return True
    if is_file(folder / PICKLED_WEIGHTS):
        raise ModelLoadError(
            f"{folder} has its sparse head only as {PICKLED_WEIGHTS}, which is a pickle.",
            hint="Loading a pickle can run any code, so emberd reads only safetensors. Where torch"
            f" is installed, run this in that folder: {_CONVERT}",
        )
    return False


def read_splade(folder: Path) -> Splade:
    """Return what the files say; without modules.json, what SparseEncoder does without it.

    Raises:
        ModelLoadError: a file is damaged, or asks for what emberd does not do.
    """
    steps = read_steps(folder)
    table = folder / TABLE if is_file(folder / TABLE) else None
    if steps is None or has_token_weights(folder):
        return Splade(queries=table)
    listing = "modules.json"
    if [step.kind for step in steps] == ["Router"]:
        listing = "router_config.json"
        steps, table = _routes(folder / steps[0].path / listing, folder, table)
    kinds = [step.kind for step in steps]
    if len(steps) != 2 or kinds[0] not in _ENCODERS or kinds[1] != "SpladePooling":
        raise ModelLoadError(
            f"{folder / listing} lists {' > '.join(kinds)}; a sparse model is a Transformer and"
            " SpladePooling.",
            hint="Choose another model, or another `kind` for it.",
        )
    if steps[0].path not in ("", "."):
        raise old_layout(folder, steps[0].path)
    where = Path(steps[1].path, "config.json")
    values = read_optional(folder / where)
    strategy = values.get("pooling_strategy", "max")
    activation = values.get("activation_function", "relu")
    if strategy != "max" or activation not in ("relu", "log1p_relu"):
        raise ModelLoadError(
            f"{folder / where} says {strategy} of {activation}; supported are max of relu and of"
            " log1p_relu.",
            hint="Choose another model.",
        )
    return Splade(logs=1 + (activation == "log1p_relu"), queries=table, stated_by=str(where))


def lists_splade(folder: Path) -> bool:
    """Say whether the files list SpladePooling, so that the model is a sparse one."""
    steps = read_steps(folder) or ()
    if [step.kind for step in steps] == ["Router"]:
        path = folder / steps[0].path / "router_config.json"
        types = read_optional(path).get("types")
        steps = tuple(step_of(str(each), "") for each in (types or {}).values())
    return any(step.kind == "SpladePooling" for step in steps)


def _routes(path: Path, folder: Path, other: Path | None) -> tuple[tuple[Step, ...], Path | None]:
    """Return the steps for documents, and the table for queries, if they have a step for it.

    `other`: the table that is taken if that step has none of its own.
    """
    config = read_object(path)
    try:
        types, structure = config["types"], config["structure"]
        routes = {
            str(name): [step_of(str(types[key]), str(key)) for key in keys]
            for name, keys in structure.items()
        }
        documents = tuple(routes["document"])
        queries = routes.get("query", [])
    except (KeyError, TypeError, AttributeError):
        raise ModelLoadError(f"{path} does not say what to do with a document.") from None
    if [step.kind for step in queries] == ["SparseStaticEmbedding"]:
        own = folder / queries[0].path / "model.safetensors"
        return documents, own if is_file(own) or not other else other
    if queries and queries != list(documents):
        raise ModelLoadError(
            f"{path} has another way for queries than for documents, which is not a table:"
            f" {' > '.join(step.kind for step in queries)}.",
            hint="Choose another model.",
        )
    return documents, None
