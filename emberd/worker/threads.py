"""A thread without which the worker cannot answer: when it fails, the process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from emberd.worker.outbox import log

THREAD_FAILED = 70  # exit code


@contextmanager
def worker_ends_with_this_thread(doing: str) -> Iterator[None]:
    """End the process if this thread fails, so that the server starts another.

    Otherwise its requests would never be answered. Catches BaseException because a panic in the
    tokenizer is not an `Exception`.
    """
    try:
        yield
    except BaseException as error:  # noqa: BLE001
        log(f"{doing} failed: {type(error).__name__}")
        os._exit(THREAD_FAILED)
