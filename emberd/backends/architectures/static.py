"""The sizes of static models: a vector for each token, and a text has the mean of its tokens'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

from emberd.backends.architectures.base import Architecture
from emberd.backends.config import ModelConfig
from emberd.backends.tensors import open_tensors
from emberd.errors import ModelLoadError

TABLE: Final = "embedding"


@dataclass(frozen=True, slots=True, kw_only=True)
class Static(Architecture):
    """A static model, as model2vec makes them. Source: `StaticModel` in its `model2vec/model.py`.

    Tensors: a table of vectors; perhaps `weights`, by which each token's vector is multiplied, and
    `mapping`, which says for each token which row of the table it has. The texts' tokens are those
    that the tokenizer knows.

    `rows`: how many vectors the table has; without a mapping, one for each token.
    """

    prefixes: ClassVar[tuple[str, ...]] = ()
    other_names: ClassVar[Mapping[str, str]] = {"embeddings": f"{TABLE}.weight"}
    only_known: ClassVar[bool] = True

    rows: int

    @classmethod
    def read(cls, config: ModelConfig) -> Self:
        """Read the sizes, which only the header of the weights has: the first bytes of the file.

        Raises:
            ModelLoadError: there is no table, or the file is missing or damaged.
        """
        path = config.path.parent / "model.safetensors"
        tensors = open_tensors(path)
        table = tensors.get("embeddings") or tensors.get(f"{TABLE}.weight")
        if table is None or len(table.shape) != 2:
            raise ModelLoadError(
                f"{path} has no table of vectors, which is called `embeddings` or"
                f" `{TABLE}.weight`; it has {', '.join(sorted(tensors)[:9])}."
            )
        rows, size = table.shape
        mapping = tensors.get("mapping")
        return cls(
            model_type=str(config.get("model_type")),
            vocab_size=mapping.shape[0] if mapping else rows,
            hidden_size=size,
            max_tokens=2**31 - 1,  # nothing limits them
            rows=rows,
        )
