"""Commands that a test does something to while they embed on a cluster."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

import psutil

WITHIN_S = 180.0


def under_way(
    words: Sequence[str], environ: Mapping[str, str], then: Callable[[psutil.Process], None]
) -> tuple[int, str, str]:
    """Run emberd with `--progress`, and do something to it once it has embedded rows.

    Returns its exit code, stdout and stderr.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "emberd", *words],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stderr
            errors = []
            for line in process.stderr:
                errors.append(line)
                if line.startswith("{") and json.loads(line).get("progress", {}).get("done"):
                    break
            then(psutil.Process(process.pid))
            said, more = process.communicate(timeout=WITHIN_S)
        except BaseException:
            process.kill()
            raise
        return process.returncode, said, "".join(errors) + more
