"""Why did my search get worse? The weightiest reason comes first, and each says what to do."""

from dataclasses import replace

from emberd.migrate.check import StoreReport
from emberd.migrate.health import Health
from emberd.spaces.chunks import StoreChunking

SOUND = StoreReport(
    store="/notes.db", kind="blob", verdict="compatible", default="bge-small", model="bge-small",
    precision="f32", fingerprint="f", judged_by="sample", dimensions=384, rows=1000, sampled=200,
    mean_cosine=1.0, lowest_cosine=1.0, health=Health(rows=1000),
)  # fmt: skip


def test_a_sound_store_sends_people_elsewhere() -> None:
    answer = SOUND.why_worse

    assert answer.startswith("Nothing here explains it")
    assert "`input_type`" in answer
    assert SOUND.to_dict()["why_worse"] == answer


def test_another_models_vectors_come_first() -> None:
    report = replace(
        SOUND, verdict="re-embed", model="minilm", health=Health(rows=1000, duplicates=300)
    )

    answer = report.why_worse

    assert answer.startswith("The rows were made by minilm, and queries are asked with bge-small")
    assert answer.index("minilm") < answer.index("30% of the rows repeat another row's text")


def test_the_shares_of_a_mixed_store_are_said() -> None:
    made_by = {"minilm": list(range(50)), "bge-small": list(range(140)), "": list(range(10))}

    answer = replace(SOUND, verdict="mixed", model=None, made_by=made_by).why_worse

    assert "70% by bge-small, 25% by minilm, 5% by no model on this machine" in answer


def test_rows_that_spoil_a_search_are_counted() -> None:
    health = Health(rows=1000, bad_vector=1, not_unit=500, without_vector=40)

    answer = replace(SOUND, health=health).why_worse

    assert "1 vectors are zero" in answer
    assert "50% of the vectors do not have length 1" in answer
    assert "40 texts have no vector and cannot be found" in answer


def test_a_few_duplicates_explain_nothing() -> None:
    assert replace(SOUND, health=Health(rows=1000, duplicates=5)).why_worse == SOUND.why_worse


def test_what_is_cut_off_cannot_be_found() -> None:
    chunk, new = StoreChunking(size=200), StoreChunking(size=100)
    report = replace(SOUND, max_tokens=256, truncated=50, chunk=chunk, chunk_of_new=new)

    answer = report.why_worse

    assert "reads only the first 256 tokens of a text: 25% of the rows" in answer
    assert "New rows are cut in another way" in answer


def test_an_unknown_and_an_empty_store() -> None:
    assert "No model on this machine" in replace(SOUND, verdict="unknown", model=None).why_worse
    assert "no rows" in replace(SOUND, rows=0, health=Health()).why_worse
