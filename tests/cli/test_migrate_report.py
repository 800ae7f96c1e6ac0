"""What `emberd migrate` prints, from what was found."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emberd.cli import migrate_report as said
from emberd.config.load import Config, load_config
from emberd.migrate.candidates import Candidate
from emberd.migrate.check import StoreReport, Work
from emberd.migrate.embedding import Target
from emberd.migrate.health import Health
from emberd.migrate.plan import Plan
from emberd.migrate.store_ref import StoreRef
from emberd.migrate.verify import Migrated
from emberd.spaces.stores import KnownStore
from emberd.stores.base import Copy, Cost, Lacking, Shape
from emberd.stores.sqlite.cmem import CmemStore
from emberd.stores.sqlite.sqlite_vec import SqliteVecStore

FILE = Path("/stores/notes.db")
NOTES = StoreRef(name="notes", store=SqliteVecStore(FILE))
SERVED = replace(NOTES, served_by="mpnet")
BY_PATH = StoreRef(name=str(FILE), store=SqliteVecStore(FILE))

PLAN = Plan(
    shape=Shape(rows=300, dimensions=384),
    lacking=Lacking(),
    copies=(),
    target=Target(model="mpnet", dimensions=768, fingerprint="ff", probes=""),
    there=None,
    cost=Cost(backup_bytes=2**20, swap_bytes=2**20, locked_s=0.25),
    staged=0,
    rows_per_s=100.0,
)
COPY = Copy(column="again.raw", rows=9, same=9, key="id", others=(), moves=False)
MIGRATED = Migrated(
    rows=300, embedded=300, embed_s=3.0, locked_s=0.25, lowest_cosine=0.99996,
    backup="/stores/backup-0001.db",
)  # fmt: skip
REPORT = StoreReport(
    store="notes", kind="sqlite-vec", verdict="compatible", default="minilm", model="minilm",
    precision="4bit", fingerprint="ff", judged_by="sample", dimensions=384, rows=300, sampled=200,
    mean_cosine=1.0, lowest_cosine=0.9999, health=Health(rows=300),
)  # fmt: skip
FAR, NEAR = (
    Candidate(
        model=model, precision="f32", fingerprint="ff", mean_cosine=cosine, lowest_cosine=0.1,
        share=0.0,
    )
    for model, cosine in (("minilm", 0.2), ("mpnet", 0.98))
)  # fmt: skip
WORK = Work(model="minilm", rows=300, minutes=3.0, megabytes=1.4, locked_s=0.2)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(environ={"EMBERD_HOME": str(tmp_path)})


def holding(model: str | None) -> KnownStore:
    return KnownStore(path=str(FILE), kind="sqlite-vec", model=model, fingerprint=None)


@pytest.mark.parametrize(
    ("ref", "holds", "words"),
    [
        (NOTES, None, ["`emberd migrate check notes`", "; the default must be that model"]),
        (NOTES, holding(None), ["`emberd migrate check notes`"]),
        (SERVED, None, ["`stores.notes.model` must be that model"]),
        (BY_PATH, None, [f"`emberd migrate check {FILE}`", "that its users ask for"]),
        (NOTES, holding("bge-small"), ["the default is minilm", "`emberd use bge-small`"]),
        (SERVED, holding("bge-small"), ["set `stores.notes.model` to bge-small"]),
        (BY_PATH, holding("bge-small"), ["ask for bge-small, or run `emberd use bge-small`"]),
    ],
)
def test_after_an_undo_it_names_what_to_change(
    config: Config, ref: StoreRef, holds: KnownStore | None, words: list[str]
) -> None:
    sentence = said.after_undo(config, ref, holds)

    assert all(each in sentence for each in words), sentence


def test_after_an_undo_to_the_model_in_use_nothing_is_to_change(config: Config) -> None:
    sentence = said.after_undo(config, NOTES, holding("minilm"))

    assert "fit the default, minilm" in sentence
    assert "emberd use" not in sentence


def status(**found: object) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "recovered": None, "rows": 300, "dimensions": 384, "dtype": "float", "stamp": None,
        "staged": None, "under_way": False, "backups": [], "unreadable": [], "copies": [],
    }  # fmt: skip
    return nothing | found


def test_the_status_of_a_store_that_was_never_migrated() -> None:
    (unknown,) = said.status_sentences(NOTES, status(), None)
    known, model = said.status_sentences(NOTES, status(), holding("minilm"))
    (*_, several) = said.status_sentences(NOTES, status(), holding(None))

    assert "`emberd migrate check`" in unknown
    assert "`emberd migrate check`" not in known
    assert "minilm" in model
    assert "more than one model" in several


def test_the_status_names_all_that_a_migration_left() -> None:
    found = status(
        recovered="Finished it.",
        stamp={"model": "mpnet", "fingerprint": "ff", "made_at": "today"},
        staged={"model": "bge-small", "rows": 17},
        backups=[{"bytes": 2**20, "model": "mpnet", "at": "today", "path": "/backup-0001.db"}],
        unreadable=["/backup-0002.db"],
        copies=["/undone-0001.db"],
    )

    lines = said.status_sentences(NOTES, found, holding("mpnet"))
    (*_, running, _, _, _) = said.status_sentences(NOTES, found | {"under_way": True}, None)

    recovered, stamped, stopped, backup, unreadable, copy = lines
    assert recovered == "Finished it."
    assert "mpnet (ff)" in stamped
    assert "bge-small" in stopped and "17 rows" in stopped and "`emberd migrate run`" in stopped
    assert "under way" in running
    assert "1 MiB" in backup and "/backup-0001.db" in backup
    assert "/backup-0002.db" in unreadable
    assert "/undone-0001.db" in copy


def test_a_plan_for_json_lists_a_few_of_the_keys() -> None:
    lacking = Lacking(text=range(100), vector=range(200, 210))

    row = said.plan_row(NOTES, replace(PLAN, lacking=lacking, copies=[COPY]))

    assert (row["store"], row["path"], row["model"]) == ("notes", str(FILE), "mpnet")
    assert (row["dimensions_before"], row["dimensions"], row["rows"]) == (384, 768, 300)
    assert (row["without_text"], list(row["without_text_keys"])) == (100, list(range(20)))
    assert (row["without_vector"], len(row["without_vector_keys"])) == (10, 10)
    assert row["copies"][0]["column"] == "again.raw"
    assert row["plan"]["minutes"] == 0.05
    assert row["plan"]["backup_bytes"] == 2**20
    assert row["plan"]["disk_bytes"] == PLAN.disk_bytes


@pytest.mark.parametrize(("rows", "words"), [(300, "about 3 s"), (30_000, "about 5 minutes")])
def test_a_plan_says_how_long_it_takes(rows: int, words: str) -> None:
    sentences = said.plan_sentences(NOTES, replace(PLAN, shape=Shape(rows=rows, dimensions=384)))

    assert words in sentences
    assert "100 rows/s measured" in sentences


def test_the_plan_of_an_empty_store_has_no_speed() -> None:
    empty = replace(PLAN, shape=Shape(rows=0, dimensions=384))

    assert "rows/s" not in said.plan_sentences(NOTES, empty)


def test_a_plan_names_what_is_ready_and_what_is_lacking() -> None:
    lacking = Lacking(text=range(1, 13), vector=[90])

    lines = said.plan_sentences(NOTES, replace(PLAN, staged=17, lacking=lacking)).splitlines()

    assert [line.split()[0] for line in lines[2:]] == ["17", "12", "1"]
    assert "(1, 2, 3, 4, 5, 6, 7, 8, ...)" in lines[3]
    assert "(90)" in lines[4]


ALSO = "`-o also=again.raw`"


@pytest.mark.parametrize(
    ("copy", "before", "after"),
    [
        (COPY, f"{ALSO} migrates them too", "still holds 9 of the old vectors"),
        (replace(COPY, moves=True), "9 will be migrated too.", "9 were migrated too."),
        (replace(COPY, moves=True, same=7, others=[3, 4]), "rowid 3, 4", "the others stay"),
        (replace(COPY, key=None, same=0), "If they are vectors, they stay", "they stay"),
        (replace(COPY, movable=False), "they stay", "still holds 9 of the old vectors."),
    ],
)
def test_columns_with_copies_are_named_before_and_after(
    copy: Copy, before: str, after: str
) -> None:
    assert before in said.plan_sentences(NOTES, replace(PLAN, copies=[copy]))
    done = said.migrated_sentences(NOTES, replace(MIGRATED, copies=[copy]), "mpnet", "mpnet")
    assert after in done
    assert ("`emberd migrate undo notes`, then" in done) == (copy is COPY)


def test_a_copy_that_cannot_move_is_given_no_option() -> None:
    fixed = replace(COPY, movable=False)

    assert ALSO not in said.plan_sentences(NOTES, replace(PLAN, copies=[fixed]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ["(lowest cosine 1.0000)", "`emberd migrate undo notes`", "backup-0001.db"]),
        ({"index_s": 0.15}, [" s (0.1 s for indexes). Checked"]),
        ({"lowest_cosine": None}, ["no row to embed again"]),
        ({"unverified": "No server."}, ["No server.", "`emberd migrate check notes --sample 200`"]),
        ({"gone": 3}, ["3 of these rows no longer exist"]),
        ({"set_aside": 2, "set_aside_in": "the table aside"}, ["moved to the table aside"]),
        ({"strays": 4}, ["4 rows", "with another model's vectors", "Once the default is right"]),
        ({"strays": 4, "unverified": "No server."}, ["in an unknown space", "--force"]),
    ],
)
def test_what_came_of_a_migration(change: dict[str, Any], words: list[str]) -> None:
    sentences = said.migrated_sentences(NOTES, replace(MIGRATED, **change), "mpnet", "mpnet")

    assert all(each in sentences for each in words), sentences
    assert "so that queries are in the same space" not in sentences


def test_after_a_migration_it_names_what_still_asks_for_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    cmem = StoreRef(name="notes", store=CmemStore(tmp_path))
    without_backup = replace(MIGRATED, backup=None)

    default = said.migrated_sentences(cmem, without_backup, "mpnet", "minilm")
    named = said.migrated_sentences(SERVED, MIGRATED, "bge-small", "mpnet")

    assert "`emberd use mpnet`" in default
    assert f"{tmp_path / 'config.json'} names the new model" in default
    assert "Backup:" not in default
    assert "set `stores.notes.model` to bge-small" in named
    assert "emberd use" not in named


@pytest.mark.parametrize(
    ("change", "ref", "words"),
    [
        ({}, NOTES, "compatible: made by minilm, which fits the default, minilm."),
        ({"judged_by": "stamp", "sampled": 0}, NOTES, "according to its stamp"),
        (
            {"verdict": "re-embed", "model": "mpnet", "why": "texts are cut"},
            NOTES,
            "re-embed: made by mpnet; the default is minilm, another space (texts are cut).",
        ),
        ({"verdict": "re-embed"}, SERVED, "the model that its users name is minilm"),
        ({"verdict": "mixed"}, NOTES, "mixed: "),
        ({"verdict": "unknown"}, NOTES, "made these vectors; `emberd pull` others."),
        ({"verdict": "unknown", "candidates": [FAR]}, NOTES, "vectors; `emberd pull` others."),
        (
            {"verdict": "unknown", "candidates": [FAR, NEAR]},
            NOTES,
            "made these vectors. mpnet comes near them (mean cosine 0.980), but only 0.999",
        ),
        ({"sampled": 0}, NOTES, "compatible: the store is empty"),
        (
            {"sampled": 0, "verdict": "re-embed"},
            NOTES,
            "`emberd migrate run notes --to minilm`",
        ),
        (
            {"sampled": 0, "verdict": "unknown", "health": Health(rows=9, empty_text=9)},
            NOTES,
            "unknown: no row has a text",
        ),
        (
            {"sampled": 0, "verdict": "unknown", "health": Health(rows=9, empty_text=8)},
            NOTES,
            "unknown: none of the rows sampled",
        ),
    ],
)
def test_a_verdict_is_a_sentence(
    capsys: pytest.CaptureFixture[str], change: dict[str, Any], ref: StoreRef, words: str
) -> None:
    said.show_report(replace(REPORT, **change), ref)

    first, *_, verdict, worse = capsys.readouterr().out.splitlines()
    assert "300 rows, 384 dimensions" in first
    assert words in verdict
    assert worse.startswith("Why did my search get worse? ")


def test_a_report_has_all_that_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    ill = Health(
        rows=300, without_vector=1, without_text=2, empty_text=3, bad_vector=4, duplicates=6,
        not_unit=5, textless=[11, 12], vectorless=[90],
    )  # fmt: skip
    candidate = Candidate(
        model="bge-small", precision="4bit", fingerprint="bb", mean_cosine=0.5, lowest_cosine=0.25,
        share=0.0,
    )  # fmt: skip
    report = replace(
        REPORT, verdict="mixed", health=ill, copies=[COPY], candidates=[candidate], work=WORK,
        caveats=["a pause."],
        made_by={"minilm": range(1, 192), "": [7] * 9},
    )  # fmt: skip

    said.show_report(report, NOTES)

    out = capsys.readouterr().out
    counted = [int(count) for count in re.findall(r"^  (\d+) ", out, re.M)]
    assert counted == [1, 2, 3, 4, 5, 6]
    assert "cannot promise here: a pause." in out
    assert "Vectors without a text: 11, 12." in out
    assert "Texts without a vector: 90." in out
    assert "again.raw also holds 9 BLOBs" in out
    assert "bge-small" in out
    assert "  minilm: 191 of 200: 1, 2, 3, 4, 5, 6, 7, 8, ..." in out
    assert "  no model here: 9 of 200: 7" in out
    assert "`emberd migrate run notes --to minilm`" in out
    assert "3 minutes" in out


def test_a_store_that_fits_is_not_told_how_to_be_embedded_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said.show_report(replace(REPORT, work=WORK), NOTES)

    assert "emberd migrate run" not in capsys.readouterr().out
