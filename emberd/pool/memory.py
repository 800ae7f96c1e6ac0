"""Memory and processor time of a process: what counts on each system."""

import ctypes
import gc
import sys

import psutil

from emberd import freed


class _RusageInfo(ctypes.Structure):
    """`struct rusage_info_v0` of macOS, from <sys/resource.h>."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("times_wakeups_and_pageins", ctypes.c_uint64 * 5),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("start_and_exit", ctypes.c_uint64 * 2),
    )


def memory_bytes(pid: int) -> int:
    """Return the memory of a process, 0 when it is gone.

    On macOS the physical footprint: memory that Metal holds is not in the resident size.
    """
    if sys.platform == "darwin":
        info = _RusageInfo()
        library = ctypes.CDLL("/usr/lib/libproc.dylib")
        if library.proc_pid_rusage(pid, 0, ctypes.byref(info)) == 0:
            return int(info.phys_footprint)
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used, 0 when it is gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def release_free_memory() -> None:
    """Return unused memory to the system: reference cycles, and what glibc keeps for later."""
    gc.collect()
    freed.give_back()
