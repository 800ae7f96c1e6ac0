"""The one answer to whether a model is here, and where."""

from pathlib import Path

import pytest

from emberd.errors import SourceError
from emberd.models.availability import find_here, in_order, require_here
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from tests import model_folder

HUB = Source(hf="me/mine")
PACKAGE = Source(package="not-installed-here")


def model(*sources: Source) -> ModelSpec:
    return ModelSpec(name="mine", sources=sources, dimensions=8, pooling="mean")


def last_used(source: Source, folder: Path = Path("/nowhere")) -> LockEntry:
    return LockEntry(source=str(source), folder=str(folder))


def test_sources_are_tried_in_order_and_the_last_used_one_first() -> None:
    spec = model(HUB, PACKAGE)

    assert in_order(spec, None) == [HUB, PACKAGE]
    assert in_order(spec, last_used(PACKAGE)) == [PACKAGE, HUB]
    assert in_order(spec, last_used(Source(path="/gone"))) == [HUB, PACKAGE]


def test_the_first_whole_source_is_where_a_model_is(tmp_path: Path) -> None:
    folder = Source(path=str(model_folder.write(tmp_path / "own")))
    assert find_here(model(HUB, PACKAGE), tmp_path, None) is None

    here = find_here(model(HUB, folder), tmp_path, None)

    assert here
    assert (here.source, here.folder, here.downloaded) == (folder, tmp_path / "own", False)
    snapshot = model_folder.cache(tmp_path)
    found = find_here(model(HUB, folder), tmp_path, None)
    assert found
    assert (found.source, found.folder) == (HUB, snapshot)


def test_a_package_is_where_it_was_while_its_folder_is_whole(tmp_path: Path) -> None:
    """It may be installed for a different Python from this one."""
    folder = model_folder.write(tmp_path / "site-packages" / "model")
    before = last_used(PACKAGE, folder)

    here = find_here(model(PACKAGE), tmp_path, before)

    assert here
    assert here.folder == folder
    (folder / "tokenizer.json").unlink()
    assert find_here(model(PACKAGE), tmp_path, before) is None


def test_what_needs_a_model_here_gets_it_or_an_error_that_names_it(tmp_path: Path) -> None:
    folder = Source(path=str(model_folder.write(tmp_path / "own")))

    assert require_here(model(folder), tmp_path, None).folder == tmp_path / "own"
    with pytest.raises(SourceError, match="mine"):
        require_here(model(HUB, PACKAGE), tmp_path, None)
