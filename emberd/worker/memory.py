"""Recognizes errors caused by a lack of memory."""

import errno
from collections.abc import Iterator

MESSAGES = (  # parts of messages, from libraries that have no better error for it
    "bad_alloc",  # C++
    "annot allocate memory",  # strerror(ENOMEM): mmap, dlopen, Rust's "(os error 12)"
    "ould not allocate",
    "ailed to allocate",
    "failed to map segment",  # dlopen
    "can't alloc",  # Xbyak, with which OpenVINO generates code
    "can't start new thread",
    "Resource temporarily unavailable",  # a thread's, for its stack, in C++
)


def is_short(error: BaseException) -> bool:
    """Say whether this error, or one that led to it, is a lack of memory or address space."""
    return any(
        isinstance(each, MemoryError)
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or any(words in str(each) for words in MESSAGES)
        for each in _led_to(error)
    )


def _led_to(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    pending = [error]
    for each in pending:  # grows during the loop
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += [each.__cause__, each.__context__]
