"""The steps of a model's int8: known from `lock.json`, or measured by its worker when first asked.

They are part of a fingerprint, so they are known before a request for int8 is sent; the worker gets
them with it.
"""

import logging
from collections.abc import Mapping
from functools import partial

import orjson

from emberd.aside import aside
from emberd.pool.job import Job
from emberd.pool.model import Model
from emberd.pool.request import EmbedRequest

TEXT = "how far do the numbers reach?"  # a request has one; these vectors are of other texts

log = logging.getLogger("emberd.pool")


async def steps_of(model: Model) -> Mapping[str, float]:
    """Return the step of each output size, loading the model if it is cold.

    Raises:
        EmberdError: the model cannot be loaded, or gave no vector.
    """
    await model.load()
    async with model.measuring:
        if not {*model.fingerprints} <= {*model.steps}:
            model.steps = await _kept(model, await _measured(model))
        return model.steps


async def _measured(model: Model) -> Mapping[str, float]:
    job = Job(
        # without the cache: it has to get as far as the thread that runs the model
        EmbedRequest(texts=[TEXT], encoding="steps", cache=False),
        prompt="",
        dimensions=model.spec.dimensions,
    )
    model.submit(job)
    try:
        answer = await job.done
    except BaseException:
        model.abandon(job)
        raise
    steps: dict[str, float] = orjson.loads(answer.fragments[0])
    log.info("%s: measured the steps of its int8", model.spec.name)
    return steps


async def _kept(model: Model, measured: Mapping[str, float]) -> Mapping[str, float]:
    """Write them, for later runs, unless another process did so first; return what counts."""
    await model.record.written()  # the entry that they are added to
    name, full = model.spec.name, model.fingerprints[str(model.spec.dimensions)]
    try:
        return await aside(partial(model.context.lock.keep_steps, name, full, measured))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        log.warning("%s: lock.json cannot be written: %s", name, reason)
        return measured
