"""Too little memory, or address space, is called that, whichever library meets it."""

import asyncio
import errno
import resource
import sys
from pathlib import Path

import pytest

from emberd.config.load import load_config
from emberd.errors import EmberdError, ModelLoadError
from emberd.pool.manager import Pool
from emberd.pool.process import Worker, WorkerProcess
from emberd.pool.request import EmbedRequest
from emberd.worker import memory, wire
from tests.serving import clean_environ


def chained(inner: BaseException, outer: BaseException) -> BaseException:
    """Return `outer`, raised `from None` while `inner` was handled."""
    outer.__context__ = inner
    return outer


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("Exception from src/core.cpp:117:\nstd::bad_alloc\n"),
        RuntimeError("Exception from src/dev/plugin.cpp:54:\ncan't alloc\n\n"),
        ImportError("libopenvino.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        chained(MemoryError(), SystemError("flush returned a result with an exception set")),
        chained(OSError(errno.ENOMEM, "mmap"), ModelLoadError("model.safetensors cannot be read")),
    ],
    ids=repr,
)
def test_errors_of_memory_are_known(error: BaseException) -> None:
    assert memory.is_short(error)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOENT, "No such file"),
        ModelLoadError("model.safetensors is damaged"),
        RuntimeError("Can't allocate registers for a snippet: not enough registers"),
    ],
    ids=repr,
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not memory.is_short(error)


async def start_within(home: Path, most_bytes: int) -> EmberdError | None:
    """Load a model in a worker with so much address space; return why that failed."""

    async def spawn(start: wire.Start) -> Worker:
        worker = await WorkerProcess.spawn(start)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (most_bytes, most_bytes))
        return worker

    async with Pool(load_config(environ=clean_environ(home)), spawn=spawn) as pool:
        try:
            await pool.embed(EmbedRequest(texts=["text"]))
        except EmberdError as error:
            return error
    return None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_load_under_a_limit_on_addresses_speaks_of_memory(tmp_path: Path) -> None:
    """Where it runs out depends on the machine; what is said must not."""
    told = []
    for mib in range(400, 900, 50):  # the last ones while it exports the compiled model
        error = asyncio.run(start_within(tmp_path / str(mib), mib * 2**20))
        if error:
            told.append(error)

    assert told
    for said in told:
        words = f"{said.message} {said.hint}"
        assert said.code == "worker_start", said
        assert "memory" in words, said
        assert "pull" not in words, said
