"""`emberd.ray.Embedder`: vectors inside one's own pipeline of Ray Data.

    dataset.map_batches(Embedder, fn_constructor_args=("bge-small",), compute=...)

Ray makes one for each actor. It owns a worker process with the model, as every emberd does: what
the model does costs the actor nothing, and both end together.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from emberd.config.load import load_config
from emberd.corpus.arrow import texts_of, vectors_column
from emberd.errors import BadOptionError, FingerprintMismatchError
from emberd.migrate.embedding import PoolEmbedder, embed, find_target
from emberd.registry.spec import InputType

Columns: TypeAlias = dict[str, np.ndarray[Any, Any]]
Table: TypeAlias = Any  # Arrow's, which has no types


class Embedder:
    """A callable that adds a column of vectors to a batch, a dict of arrays or an Arrow table.

    In an Arrow table, it is a list of D float32 of fixed size, null where the text is null or
    empty; among arrays it is an array (n, D) of float32, with NaN there.

    Args:
        model: name or alias, as in the configuration of the node that the actor is on.
        text: the column that has the texts.
        column: what the column of vectors is called.
        input_type: query or document, for models that distinguish them.
        fingerprint: the space that the vectors must be of; actors of several nodes agree only if
            it is given.
        config: the config file; by default, that of the user who runs the node.

    Raises:
        FingerprintMismatchError: the model here is in another space.
        EmberdError: the model is not here, or cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        *,
        text: str = "text",
        column: str = "embedding",
        input_type: InputType | None = None,
        fingerprint: str | None = None,
        config: Path | None = None,
    ) -> None:
        loaded = load_config(config=config)
        named = loaded.catalog.find(model, input_type, kinds=("embed",))
        self._text, self._column = text, column
        with ExitStack() as on_error:
            self._pool = on_error.enter_context(PoolEmbedder(loaded))
            self._target = find_target(loaded, self._pool, named.spec.name, input_type=named.role)
            found = self._target.fingerprint
            if fingerprint not in (None, found):
                raise FingerprintMismatchError(
                    f"{named.spec.name} has the fingerprint {found} here, and {fingerprint} is"
                    " wanted.",
                    hint="Give every node the same files of the model and the same entry for it.",
                )
            on_error.pop_all()  # now it is there until the process of the actor ends

    @property
    def fingerprint(self) -> str:
        """The space of the vectors."""
        return self._target.fingerprint

    def __call__(self, batch: Columns | Table) -> Columns | Table:
        """Return the batch with the column of vectors; raises `EmberdError`."""
        names = list(batch) if isinstance(batch, dict) else batch.column_names
        if self._text not in names:
            raise BadOptionError(
                f"There is no column {self._text!r}; the columns are: {', '.join(names)}.",
                hint="Say with `text` which column has the texts.",
            )
        if isinstance(batch, dict):
            texts = [text or "" for text in batch[self._text].tolist()]
        else:
            texts = texts_of(batch[self._text])
        given = np.array([bool(text) for text in texts], bool)
        vectors = np.empty((0, self._target.dimensions), np.float32)
        if given.any():
            vectors = embed(self._pool, [text for text in texts if text], self._target)
        if isinstance(batch, dict):
            every = np.full((len(texts), self._target.dimensions), np.nan, np.float32)
            every[given] = vectors
            return {**batch, self._column: every}
        return batch.append_column(self._column, vectors_column(vectors, given.tolist()))
