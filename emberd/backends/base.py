"""The contract between a worker and anything that can encode tokens.

A backend loads a folder of model files into an encoder. An encoder lives inside one worker
process, holds one model, and is loaded, called and freed on one thread, unless it says that it has
`streams`. It never sees text, HTTP, the registry file, or another model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from emberd.models.modules import TRANSFORMER_FILES
from emberd.registry.spec import FILES_OF_KIND
from emberd.registry.spec import Compute as Compute
from emberd.registry.spec import Kind as Kind
from emberd.registry.spec import Pooling as Pooling
from emberd.registry.spec import Precision as Precision
from emberd.vectors import Matrix

TokenIds = npt.NDArray[np.int32]

FILES_BESIDE_WEIGHTS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "modules.json",
    "config_sentence_transformers.json",
    *TRANSFORMER_FILES,
    "*_Pooling/config.json",
    "*_Dense/*",
    *FILES_OF_KIND["sparse"],
)
"""The files of a Hub repository that every backend needs, as glob patterns."""

MODEL_FILES = (*FILES_BESIDE_WEIGHTS, "model*.safetensors", "model.safetensors.index.json")
"""The files of a Hub repository that a safetensors backend needs, as glob patterns."""


def _nothing() -> None:
    """Do nothing; unlike a lambda, it can be sent to another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The model that a backend has to load.

    `folder` has the layout of a Hub repository. `cache` is a folder for whatever the backend
    wants to keep between loads; it belongs to this backend and model, is removed with the model,
    may be deleted at any time, and may be used by two processes at once. `cache_key` changes with
    the weights, the precision and the pooling; a backend adds whatever else its cached files
    depend on. `threads` 0 means all cores. `streams` is how many batches should run at once, if the
    backend can do that; 0: what is fastest here. `device` is one of the `devices` of an encoder
    that was loaded before, in another process; empty: the backend's own choice.

    A backend may call `python_is_free` when a library is about to work for long without the GIL.
    The tokenizer is read from then on, which holds the GIL all the time; otherwise it is read when
    the load has ended.
    """

    folder: Path
    kind: Kind = "embed"
    pooling: Pooling
    precision: Precision
    compute: Compute
    cache: Path
    cache_key: str
    threads: int = 0
    streams: int = 0
    device: str = ""
    python_is_free: Callable[[], None] = _nothing


class Encoder(Protocol):
    """One loaded model. It may also have these optional members.

    `start(token_ids, mask) -> Callable[[], Matrix]` does what `encode` does in two steps: it
    returns as soon as a GPU has its work, and the function it returns waits for the vectors. In
    between, on the same thread, the next batch may be started. Batches finish in order.

    `streams: int`: how many threads may call `encode` at the same time; 1 without it. The encoder
    then also has `encode_alone(token_ids, mask)`, which does what `encode` does with the whole
    processor, for a batch beside which nothing else runs. Not together with `start`.

    `devices: Sequence[str]`: the devices of this machine that could each have a worker with this
    model, the one in use first, if there is a choice. emberd then starts a worker for each of them
    (or as many as `replicas` says), with its name in `LoadRequest.device`. Each must give the same
    vectors.

    `packs: bool`: if true, a row may hold several texts one after the other (packing). The mask
    then numbers them 1, 2, ... (0 is still padding), no text attends to another, and there is a
    vector for each text, row by row. Batches of texts of mixed lengths then have little padding.

    `row_tokens: int`: how many tokens such a row should have if no text has more; 128 without it.

    `batch_tokens: int`: how many padded tokens a batch should have before it is known how fast the
    encoder is; 512 without it.

    `skips: bool`: if true, the mask may have the negative of a text's number for its first tokens:
    they are attended to as usual, but not pooled (`cls` is then the first token that is). Models
    whose prompts are read but not pooled need this.

    `pools_chunks: bool`: if true, `encode`, `encode_alone` and `start` take `chunks=`, `(N, 2)`
    int32, with a batch of one text: where its chunks begin and end, in tokens. The vectors are then
    those of the chunks, `(N, D)`, each the mean of its tokens' last hidden states. Chunks have
    tokens, and may overlap.

    A model of kind `rerank` is given pairs of texts, and its vector is one number, the logit: then
    `encode`, `encode_alone` and `start` have a third argument `types`, `(B, T)` int32, with 0 for
    the tokens of the first text of a pair and 1 for those of the second, if the tokenizer tells
    them apart.

    The vector of a model of kind `sparse` has one number for each entry of the vocabulary, none of
    them negative and most of them 0, all of them in an unlucky case; its pooling is `max`.

    `kept: tuple[str, ...]`: the names of the files in `LoadRequest.cache` that the next load of the
    same model takes what it needs from, also if they could not be written. Others there may then be
    deleted.

    `audit() -> str | None` checks that what the encoder computes with is intact, where that would
    slow down a start. It runs once, in its own low-priority thread, after the first answer
    and while others are being computed. If something is damaged, it makes sure that the
    next load does not use it, and says what it was and what happened to it; the worker then ends.
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
            Array of shape `(B, D)`, float32, C-contiguous, not necessarily of unit length. Each row
            is the same (cosine > 0.9999) whatever the other rows and the padding are.
        """
        ...


def encode_alone(encoder: Encoder, *arrays: TokenIds, **more: TokenIds) -> Matrix:
    """Encode with the whole processor, for a batch beside which nothing else runs."""
    run = getattr(encoder, "encode_alone", encoder.encode)
    vectors: Matrix = run(*arrays, **more)
    return vectors


class Backend(Protocol):
    """A way to run models, an entry point of `emberd.backends`; made without arguments.

    `files` are glob patterns of the files in a Hub repository that this backend needs. `libraries`
    are the distributions that compute: when the version of one changes, vectors are checked again.

    It may also have `architectures: ClassVar[frozenset[str]]`, the `model_type`s of config.json
    that it runs (see `plugins.architectures`), or `any_architecture: ClassVar[bool]`, if its files
    describe the whole model. And `devices() -> Sequence[str]`, what it computes on here, such as
    `cpu` or `gpu`, which raises BackendBrokenError if the backend cannot work on this machine
    (`emberd doctor` calls it, in a process of its own).

    `kinds: ClassVar[frozenset[Kind]]` are the kinds of models that it runs; without it, `embed`.
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
