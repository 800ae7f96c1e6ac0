"""A wrong tokenizer or pooling is noticed without a reference file.

Both models here are built-in entries whose files lie in a Hub's cache made by hand. Neither has a
`1_Pooling` folder, which would have refused another pooling at once.
"""

import shutil

import pytest

from tests.verify.support import Report, copy_minilm, fill_hub_cache, shuffle_vocabulary


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """`minilm` with CLS pooling, and `minilm-f32` with words that have each other's numbers."""
    home = tmp_path_factory.mktemp("wrong")
    (home / "config.yaml").write_text("models: {minilm: {pooling: cls}}")
    snapshots = {}
    for repository in (
        "mlx-community/all-MiniLM-L6-v2-4bit",
        "sentence-transformers/all-MiniLM-L6-v2",
    ):
        folder = copy_minilm(home / "files" / repository)
        shutil.rmtree(folder / "1_Pooling")
        (folder / "modules.json").unlink()
        snapshots[repository] = fill_hub_cache(home / "hf/hub", repository, folder)
    shuffled = snapshots["sentence-transformers/all-MiniLM-L6-v2"]
    shuffle_vocabulary((shuffled / "tokenizer.json").resolve())
    return Report("minilm", "minilm-f32", home=home)


@pytest.mark.slow
def test_a_shuffled_vocabulary_fails_a_built_in_model(report: Report) -> None:
    row = report.row("minilm-f32", "paraphrases")

    assert report.code == 1
    assert row["verdict"] == "failed"
    assert "tokenizer" in row["advice"]


@pytest.mark.slow
def test_a_file_that_is_not_what_the_hub_gave_out_is_named(report: Report) -> None:
    row = report.row("minilm-f32", "published hashes")

    assert row["verdict"] == "failed"
    assert row["detail"].startswith("tokenizer.json: ")
    assert report.verdict("minilm", "published hashes") == "ok"


@pytest.mark.slow
def test_a_wrong_pooling_that_no_file_denies_fails_a_built_in_model(report: Report) -> None:
    row = report.row("minilm", "pooling")

    assert row["verdict"] == "failed"
    assert "it may be mean" in row["advice"]


@pytest.mark.slow
def test_shipped_vectors_are_not_what_a_wrong_use_gives(report: Report) -> None:
    assert report.verdict("minilm", "reference vectors") == "failed"
    assert report.verdict("minilm-f32", "reference vectors") == "failed"


@pytest.mark.slow
def test_what_is_right_about_them_passes(report: Report) -> None:
    right = {"load", "dimensions", "finite", "unit length", "alone = batch = shuffled"}

    assert not right & (report.failed("minilm") | report.failed("minilm-f32"))
    assert report.verdict("minilm", "precision loss") == "ok"
