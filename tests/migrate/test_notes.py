"""The file that was edited together with stores: when it is restored, and when it is left alone."""

from pathlib import Path

import pytest

from emberd.errors import StoreError
from emberd.migrate.notes import JointRun
from emberd.stores.files import replace_text


def run_that_edited(file: Path | None) -> JointRun:
    """Return a run that changed "before" to "after" in this file, or that changed no file."""
    if file is None:
        return JointRun(run="r", stores=())
    return JointRun(run="r", stores=(), file=str(file), before="before", after="after")


@pytest.mark.parametrize(
    ("present", "then", "is_edited"),
    [
        ("after", "before", False),
        ("before", "before", False),
        ("edited since", "edited since", True),
        (None, None, False),
    ],
)
def test_a_file_is_restored_unless_somebody_has_edited_it(
    present: str | None, then: str | None, is_edited: bool, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    if present is not None:
        file.write_text(present)
    run = run_that_edited(file)

    assert run.is_edited() is is_edited
    assert run.restore_file() is (present == "after")
    assert (file.read_text() if file.exists() else None) == then


def test_without_a_file_nothing_is_restored_or_edited() -> None:
    run = run_that_edited(None)

    assert (run.restore_file(), run.is_edited()) == (False, False)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "no-folder" / "config.yaml"

    with pytest.raises(StoreError, match=str(missing)):
        replace_text(missing, "text")
