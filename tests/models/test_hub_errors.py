"""What is said when the Hub's client fails for a reason that is not the Hub's."""

import errno
from pathlib import Path

import pytest

from emberd.errors import SourceError
from emberd.models.hub_errors import explained
from emberd.registry.spec import Source

SOURCE = Source(hf="me/mine")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "/the/hub is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "/the/hub is full"),
        (OSError(errno.EACCES, "Permission denied"), "the download failed: Permission denied"),
        (OSError("as the library says it"), "the download failed: as the library says it"),
        (OSError(), "the download failed: OSError"),
        (TimeoutError(), r"cannot be reached \(TimeoutError\)"),
        (ValueError("<html>"), "something other than the Hub"),
    ],
)
def test_the_cause_is_named(error: Exception, said: str) -> None:
    with pytest.raises(SourceError, match=said), explained(SOURCE, Path("/the/hub")):
        raise error
