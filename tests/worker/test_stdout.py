"""Nothing but frames reaches the parent."""

import subprocess
import sys
from pathlib import Path

from emberd.worker import wire
from tests.serving import clean_environ

CHILD = """
import os, subprocess
from emberd.worker.__main__ import take_over_stdout

replies = take_over_stdout()
os.write(1, b"noise from C\\n")
print("noise from Python", flush=True)
subprocess.run(["echo", "noise from a child"])
replies.write(b"frame\\n")
replies.flush()
"""


def test_noise_on_descriptor_one_never_reaches_the_parent(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, check=True, env=clean_environ(tmp_path)
    )

    assert child.stdout == b"frame\n"
    for noise in (b"noise from C", b"noise from Python", b"noise from a child"):
        assert noise in child.stderr


def test_a_worker_whose_server_is_gone_at_once_ends_in_silence(tmp_path: Path) -> None:
    worker = subprocess.run(
        [sys.executable, "-m", "emberd.worker"],
        input=b"",
        capture_output=True,
        env=clean_environ(tmp_path),
        timeout=30,
    )

    assert (worker.returncode, worker.stdout, worker.stderr) == (0, b"", b"")


def test_a_worker_that_is_told_no_model_ends_in_silence(tmp_path: Path) -> None:
    worker = subprocess.run(
        [sys.executable, "-m", "emberd.worker"],
        input=wire.encode(wire.Cancel(id=1)),
        capture_output=True,
        env=clean_environ(tmp_path),
        timeout=30,
    )

    assert (worker.returncode, worker.stdout, worker.stderr) == (0, b"", b"")
