"""Measures how far the numbers of a model's vectors reach, which sets the step of int8.

On every machine it is the same 128 texts that are embedded, in calibration.txt: they differ in
language, length and kind. Their vectors are cut to each size that the model offers and normalized
as its entry says, as those of a request are.
"""

from importlib import resources

import numpy as np

from emberd import vectors
from emberd.backends.base import encode_alone
from emberd.errors import BadVectorError
from emberd.registry.spec import InputType
from emberd.vectors import Matrix
from emberd.worker.loading import Loaded
from emberd.worker.outbox import log
from emberd.worker.padding import pad

AT_ONCE = 8  # about as much as the probes


def measure_steps(loaded: Loaded) -> dict[str, float]:
    """Return the step of each output size. Raises BadVectorError if no vector is usable.

    Runs in the thread that runs batches, which wait meanwhile: once in the life of a model.
    """
    spec = loaded.spec
    try:
        rows = _rows(loaded)
    except Exception as error:  # noqa: BLE001 - a backend may raise anything
        log(f"the texts that steps are measured with failed: {type(error).__name__}")
        raise _unusable() from None
    steps = {}
    for size in (spec.dimensions, *spec.matryoshka):
        full = vectors.layer_norm(rows) if spec.matryoshka_norm and size < spec.dimensions else rows
        out = vectors.truncate(full, size)
        out = out[vectors.finite_rows(out)]
        if not len(out):
            raise _unusable()
        out = vectors.normalize(out) if spec.normalize else out
        steps[str(size)] = vectors.step_for(vectors.largest(out))
    return steps


def _rows(loaded: Loaded) -> Matrix:
    """Return a vector for each text, `(N, D)`: half of them as documents, half as queries."""
    package = resources.files(__package__)
    lines = package.joinpath("calibration.txt").read_text(encoding="utf-8").splitlines()
    roles: tuple[InputType, InputType] = ("document", "query")
    tokens = [
        text
        for place, role in enumerate(roles)
        for text in loaded.tokenizer.encode(lines[place::2], loaded.spec.prompts.get(role, ""))
    ]
    tokens = sorted((text for text in tokens if text.ids), key=lambda text: len(text.ids))
    return np.concatenate(
        [
            encode_alone(loaded.encoder, *pad(tokens[at : at + AT_ONCE]))
            for at in range(0, len(tokens), AT_ONCE)
        ]
    )


def _unusable() -> BadVectorError:
    return BadVectorError(
        "The model gave no usable vector for any of the texts that its int8 is measured with.",
        hint="Use another `output_dtype`, or try `compute: f32` for this model.",
    )
