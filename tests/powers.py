"""Root may read and write everything: what tests permissions runs without that power."""

import os
import sys

WITHOUT = """
import ctypes, os, sys
for power in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH of <linux/capability.h>
    if ctypes.CDLL(None).prctl(24, power, 0, 0, 0):  # PR_CAPBSET_DROP: what exec gives root back
        sys.exit("this root cannot give its powers away")
os.execv(sys.argv[1], sys.argv[1:])
"""


def powerless() -> list[str]:
    """Return what to put in front of a command, the whole path of a program first.

    Nothing for who is not root. Elsewhere than on Linux run such tests as somebody else.
    """
    if os.geteuid() != 0:
        return []
    assert sys.platform == "linux", "root has no powers that it could give away here"
    return [sys.executable, "-c", WITHOUT]
