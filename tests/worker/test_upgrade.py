"""A worker whose version differs from its server's, as after an upgrade, says so and ends."""

import subprocess
import sys
from pathlib import Path

from emberd.worker import wire
from tests.serving import clean_environ


def test_a_worker_of_another_version_tells_to_restart_the_server(tmp_path: Path) -> None:
    start = wire.Start(version="0.0.0", spec={"name": "minilm"}, hub="", cache="", lock=None)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "emberd.worker", "minilm"],
        input=wire.encode(start),
        capture_output=True,
        env=clean_environ(tmp_path),
        timeout=30,
    )

    header, payload = wire.sizes(done.stdout[: wire.PREFIX.size])
    answer = wire.decode(done.stdout[wire.PREFIX.size :][:header], b"").frame
    assert payload == 0
    assert isinstance(answer, wire.StartFailed)
    assert "0.0.0" in answer.message
    assert answer.hint == "Restart the server."
    assert done.returncode == 0
