"""The entry point of a worker process: one model, from the Start frame until stdin closes.

This thread loads and runs the model, as MLX needs one thread for both; others read frames and
tokenize. A model's memory is released by ending the process.
"""

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from io import BufferedIOBase

LONGEST_MESSAGE = 1000
MEMORY_HINT = "Free some, or raise the limit (`ulimit -v`, the container's), then try again."
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
BEGAN_S = time.monotonic()  # the interpreter has started; see `loading.Phases`


def take_over_stdout() -> BinaryIO:
    """Return the pipe to the server. Called before any import that could write to stdout."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # C code (tokenizers, Metal) prints to stdout: send that to the log
    return replies


def die_with_the_server() -> None:
    """On Linux, be killed with the server: a stopped process does not notice that stdin closed."""
    if sys.platform == "linux":
        import ctypes  # NumPy imports it in any case

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(replies: BinaryIO) -> None:
    """Work for one server until it closes stdin."""
    from emberd import __version__
    from emberd.errors import EmberdError
    from emberd.worker import wire

    stdin = cast("BufferedIOBase", sys.stdin.buffer)
    start = wire.read(stdin)
    if start is None or not isinstance(start.frame, wire.Start):
        return

    def send_failure(code: str, message: str, hint: str | None) -> None:
        if len(message) > LONGEST_MESSAGE:  # it may quote a file with any content
            message = f"{message[:LONGEST_MESSAGE]} …"
        replies.write(wire.encode(wire.StartFailed(code=code, message=message, hint=hint)))

    if start.frame.version != __version__:
        upgraded = f"emberd was upgraded to {__version__}, but the server is {start.frame.version}."
        send_failure("worker_start", upgraded, "Restart the server.")
        return
    try:
        from emberd.worker.outbox import Sender
        from emberd.worker.serving import serve

        serve(start.frame, BEGAN_S, stdin, Sender(replies))
    except BrokenPipeError:
        pass  # the server is gone, and nobody reads the answers
    except Exception as error:
        from emberd.worker import memory

        if memory.is_short(error):
            too_little = "There is not enough free memory to load the model."
            send_failure("worker_start", too_little, MEMORY_HINT)
            return
        if isinstance(error, EmberdError):
            send_failure(error.code, error.message, error.hint)
            return
        import traceback

        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119 - no pathlib yet
        send_failure(
            "model_load_failed",
            f"The model could not be loaded: {type(error).__name__} at {where}: {str(error)[:300]}",
            "Run `emberd verify` on it, or pull it again.",
        )


if __name__ == "__main__":
    # NumPy only sums rows here; its BLAS would start idle threads (60 ms of a cold start).
    os.putenv("OPENBLAS_NUM_THREADS", "1")
    pipe = take_over_stdout()
    die_with_the_server()
    try:
        main(pipe)
        pipe.flush()
    finally:
        os._exit(0)  # everything is sent; tearing down libraries takes time and can only fail
