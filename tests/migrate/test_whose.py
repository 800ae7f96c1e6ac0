"""Whose vectors a store holds, by its stamp alone, and where that is noted."""

from pathlib import Path

import pytest

from emberd.config.load import Config, load_config
from emberd.errors import ConfigError
from emberd.migrate.check import check, note_target, whose
from emberd.migrate.known import find
from emberd.migrate.store_ref import StoreRef
from emberd.spaces.stores import StoresFile
from emberd.stores.base import Stamp
from tests.migrate.drawn import NEW, TEXTS, DrawingEmbedder, make_cmem, vectors
from tests.serving import clean_environ


def stamped(home: Path) -> tuple[Config, StoreRef]:
    """Return a configured store with the stamp of a model that is no longer in the registry."""
    path = make_cmem(home / "store")
    (home / "config.yaml").write_text(f"stores: {{notes: {{path: {path}}}}}\n")
    config = load_config(environ=clean_environ(home))
    ref = find(config, "notes")
    stamp = Stamp(
        model="gone", fingerprint="of gone", dimensions=8, probes="", migration="m", made_at="now"
    )
    with ref.store.replacing() as replacement:
        made = [(at + 1, row.tobytes()) for at, row in enumerate(vectors(TEXTS, "gone"))]
        replacement.fill(made, dimensions=8, stamp=stamp)
        replacement.commit()
    return config, ref


def test_the_stamp_of_a_configured_store_is_noted_once_and_then_believed(tmp_path: Path) -> None:
    config, ref = stamped(tmp_path)

    found = whose(config, ref)

    assert found is not None
    assert (found.model, found.fingerprint, found.migration) == ("gone", "of gone", "m")
    assert StoresFile(config.homes.state).read() == {"notes": found}
    assert whose(config, ref) == found


def test_a_store_without_a_name_is_only_read(tmp_path: Path) -> None:
    config, ref = stamped(tmp_path)
    (tmp_path / "config.yaml").write_text("")
    config = load_config(environ=clean_environ(tmp_path))

    found = whose(config, find(config, str(ref.store.path)))

    assert found is not None
    assert found.model == "gone"
    assert StoresFile(config.homes.state).read() == {}


def test_a_state_folder_that_cannot_be_written_stops_only_those_that_must_write(
    tmp_path: Path,
) -> None:
    config, ref = stamped(tmp_path)
    config.homes.state.write_text("a file in the folder's place")

    found = whose(config, ref)

    assert found is not None
    assert found.model == "gone"
    with pytest.raises(ConfigError, match=str(config.homes.state)) as caught:
        note_target(config, ref, NEW)
    assert caught.value.hint


def test_a_stamp_may_name_a_model_that_no_longer_exists(tmp_path: Path) -> None:
    config, ref = stamped(tmp_path)

    report = check(config, ref, DrawingEmbedder())

    assert (report.verdict, report.judged_by) == ("re-embed", "stamp")
    assert (report.model, report.precision) == ("gone", None)
    assert report.why
