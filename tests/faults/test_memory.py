"""Too little memory, or address space, is called that, whichever library meets it."""

import errno
from pathlib import Path

import pytest

from emberd.errors import ModelLoadError
from emberd.worker import memory
from tests.serving import Server


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
    [OSError(errno.ENOENT, "No such file"), ModelLoadError("model.safetensors is damaged")],
    ids=repr,
)
def test_other_errors_are_not(error: BaseException) -> None:
    assert not memory.is_short(error)


LIMITED = """
import asyncio.subprocess, resource, sys
original = asyncio.create_subprocess_exec
async def limited(program, *arguments, **options):
    script = 'ulimit -v %d && exec "$0" "$@"'
    return await original("/bin/sh", "-c", script, program, *arguments, **options)
asyncio.create_subprocess_exec = limited
"""


@pytest.mark.slow
def test_a_load_under_a_limit_on_addresses_speaks_of_memory(tmp_path: Path) -> None:
    """Where it runs out depends on the machine; what is said must not."""
    told = []
    for mib in (400, 450, 500, 550, 600, 650):
        with Server(
            tmp_path / str(mib), before=LIMITED % (mib * 1024), share_compiled=False
        ) as own:
            answer = own.http.post("/embed", json={"texts": ["text"]})
            if answer.status_code != 200:
                told.append(answer.json())

    assert told
    for said in told:
        words = f"{said['detail']} {said['hint']}"
        assert said["code"] == "worker_start", said
        assert "memory" in words, said
        assert "pull" not in words, said
