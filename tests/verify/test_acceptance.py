"""Accepting what a model has changed to, with a worker that answers at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.config.load import Config
from emberd.errors import EmberdError
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.probes import PROBES, encode
from emberd.verify import acceptance
from emberd.verify.acceptance import Accepted, accept
from emberd.verify.files import find_files
from tests.verify.fake_workers import FakeWorkers, vectors_of


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    """The workers in which models are loaded; the model still has the space that it had."""
    fakes = FakeWorkers(leave=lambda entry: entry)
    monkeypatch.setattr(acceptance, "run_in_fresh_worker", fakes)
    return fakes


@pytest.fixture
def lock(config: Config) -> LockFile:
    return LockFile(config.homes.state)


@pytest.fixture
def spec(config: Config, lock: LockFile, tmp_path: Path) -> ModelSpec:
    """A model that was used once."""
    source = Source(path=str(tmp_path / "model"))
    tiny_bert(tmp_path / "model")
    spec = ModelSpec(name="m", sources=(source,), dimensions=64, pooling="mean", backend="openvino")
    entry = find_files(spec, config.homes.hub, None).as_entry()
    probes = encode(vectors_of(PROBES))
    lock.put("m", replace(entry, fingerprint="first", probes=probes, backend="openvino"))
    return spec


def change_a_file(spec: ModelSpec) -> None:
    Path(spec.sources[0].path or "", "tokenizer_config.json").write_text("{}")


def to(fingerprint: str) -> Callable[[LockEntry], LockEntry]:
    """Return what a worker leaves when the model gives another space now."""
    return lambda entry: replace(
        entry, changed_to=replace(entry, fingerprint=fingerprint), cosine=0.5
    )


def test_what_was_never_used_has_nothing_to_accept(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    assert accept(config, replace(spec, name="other")) is None
    assert not workers.ran


def test_what_has_not_changed_has_nothing_to_accept(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    assert accept(config, spec) is None


def test_changed_files_that_moved_no_vector_leave_no_space(
    config: Config, spec: ModelSpec, workers: FakeWorkers, lock: LockFile
) -> None:
    change_a_file(spec)

    assert accept(config, spec) == Accepted("first", None)
    assert "tokenizer_config.json" in lock.read()["m"].files
    assert accept(config, spec) is None


def test_a_space_that_was_accepted_is_the_models_own(
    config: Config, spec: ModelSpec, workers: FakeWorkers, lock: LockFile
) -> None:
    change_a_file(spec)
    workers.leave = to("second")

    assert accept(config, spec) == Accepted("second", "first")
    after = lock.read()["m"]
    assert (after.fingerprint, after.changed_to) == ("second", None)


def test_nothing_is_accepted_where_the_lock_cannot_be_written(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LockFile, name: str, entry: LockEntry) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LockFile, "put", fail)

    with pytest.raises(EmberdError) as caught:
        accept(config, spec)
    assert caught.value.hint
