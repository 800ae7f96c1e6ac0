"""Ends with exit code 3, and prints in the order in which a process ends its parts."""

import atexit
import sys
import threading
import time


def _late() -> None:
    time.sleep(0.05)
    sys.stdout.write("thread\n")


def main() -> None:
    """Print, leave a thread and an exit handler that print too, and flush nothing."""
    atexit.register(sys.stdout.write, "handler\n")
    threading.Thread(target=_late).start()
    sys.stdout.write("main\n")
    sys.exit(3)
