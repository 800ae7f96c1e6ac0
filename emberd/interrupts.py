"""Ctrl-C as Python raises it, and as what its locks make of it."""


def is_interrupt(error: BaseException) -> bool:
    """Whether an error is what Ctrl-C ended with.

    If it comes just when `threading.Condition.wait` has let go of the lock, the `with` around that
    fails to release it ("release unlocked lock"), and that RuntimeError is what is left: the lock
    is let go before the `try` in https://github.com/python/cpython/blob/3.11/Lib/threading.py.
    """
    met = error.__context__ if isinstance(error, RuntimeError) else error
    return isinstance(met, KeyboardInterrupt)
