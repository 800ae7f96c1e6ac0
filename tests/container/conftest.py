"""One podman and one image for all tests of the container."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.machine import Podman, block


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """A podman that has the image `emberd`, built as docs/container.md says."""
    for tool in ("podman", "runc", "mmdebstrap"):
        assert shutil.which(tool), f"There is no {tool}: run scripts/container-tools."
    podman = Podman(Path(tempfile.mkdtemp(prefix="emberd-")))  # short: sockets have short names
    try:
        podman.make_base()
        program, verb, *rest = block("podman build").split()
        assert (program, verb) == ("podman", "build")
        podman("build", *podman.build_options(), *rest)
        yield podman
    finally:
        podman.close()
