"""The contract between a worker and anything that can encode tokens.

A backend loads a folder of model files into an encoder. An encoder lives inside one worker
process, holds one model, and is loaded, called and freed on one thread. It never sees text,
HTTP, the registry file, or another model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from emberd.models.folder import TRANSFORMER_FILES
from emberd.registry.spec import Compute as Compute
from emberd.registry.spec import Pooling as Pooling
from emberd.registry.spec import Precision as Precision
from emberd.vectors import Matrix

TokenIds = npt.NDArray[np.int32]

MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "config_sentence_transformers.json",
    *TRANSFORMER_FILES,
    "*_Pooling/config.json",
    "*_Dense/*",
    "model*.safetensors",
    "model.safetensors.index.json",
)
"""What a safetensors backend needs of a Hub repository, as glob patterns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What a backend is told about the model that it shall load.

    `folder` has the layout of a Hub repository. `cache` is a folder of this backend's and this
    model's own for things it would rather not make twice (it may be deleted at any time, goes with
    the model, and two processes may use it at once); `cache_key` changes with the weights, the
    precision and the pooling, and a backend adds what else its cached things depend on. `threads`
    0 means: all cores.
    """

    folder: Path
    pooling: Pooling
    precision: Precision
    compute: Compute
    cache: Path
    cache_key: str
    threads: int = 0


class Encoder(Protocol):
    """One loaded model.

    It may have `start(token_ids, mask) -> Callable[[], Matrix]`, which does what `encode` does in
    two steps: it returns when a GPU has its work, and what it returned waits for the rows. Between
    the two, on the same thread, the next batch may be started. Batches finish in their order.

    It may have `packs: bool`. When that is true, a row may hold several texts, one after the other:
    the mask then numbers them 1, 2, ... (0 is padding still), none sees another, and there is a
    vector for each text, row by row. So batches of texts of all lengths have little padding.

    It may have `skips: bool`. When that is true, the mask may have the negative of a text's number
    for the first tokens of it: they are seen as ever, but not pooled (`cls` is then the first that
    is). A model whose prompts are read but not pooled needs it.

    It may have `audit() -> str | None`: a look at what it computes with that would make a start
    slower. It runs once, in a thread of its own and of low priority, when the first answer is out
    and while others are computed. When something is damaged it sees to it that the next load does
    not use that, and says what it was and what became of it; the worker then ends.
    """

    @property
    def dimensions(self) -> int:
        """Length of a pooled vector."""
        ...

    @property
    def compute(self) -> str:
        """The arithmetic in use: `f32`, `bf16` or `f16`."""
        ...

    def encode(self, token_ids: TokenIds, mask: TokenIds) -> Matrix:
        """Run the model and pool.

        Args:
            token_ids: shape `(B, T)`, int32, padded on the right.
            mask: shape `(B, T)`, int32, 1 for a token and 0 for padding; no row is all zero.

        Returns:
            Array of shape `(B, D)`, float32, C-contiguous, not necessarily of unit length, each
            row the same (cosine > 0.9999) whatever the other rows and the padding are.
        """
        ...


class Backend(Protocol):
    """A way to run models; registered under entry point `emberd.backends`, made without arguments.

    `files` are glob patterns: what of a Hub repository this backend needs. `libraries` are the
    distributions that compute: when the version of one changes, vectors are checked again.

    It may have `architectures: ClassVar[frozenset[str]]`: the `model_type`s that it runs, as
    config.json has them (see `plugins.architectures`). And `devices() -> Sequence[str]`: what it
    computes on here, such as `cpu` or `gpu`; raises BackendBrokenError when it cannot work on this
    machine (`emberd doctor` asks, in a process of its own).
    """

    files: ClassVar[tuple[str, ...]]
    libraries: ClassVar[tuple[str, ...]]

    def load(self, request: LoadRequest) -> Encoder:
        """Load the model.

        Raises:
            BackendBrokenError: this backend cannot work on this machine.
            ModelLoadError: the files are damaged, contradictory, or of an unsupported kind;
                the message names what was found.
        """
        ...


def mean_pool(token_vectors: Matrix, mask: TokenIds) -> Matrix:
    """Average the token vectors that `mask` keeps: `(B, T, D)`, `(B, T)` -> `(B, D)`.

    Source: Sentence-BERT, arXiv:1908.10084, section 3.
    """
    kept = mask[:, :, None].astype(np.float32)  # (B, T, 1), so that it broadcasts over D
    total = (token_vectors * kept).sum(axis=1)  # (B, D)
    mean: Matrix = (total / kept.sum(axis=1)).astype(np.float32)  # (B, D) / (B, 1)
    return mean
