"""All of `emberd verify`: if everything is well, if little is known, and if nothing works."""

import importlib.util
import re
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import clean_environ, run_emberd
from tests.verify.support import Report, copy_minilm

TINY = "models: {tiny: {sources: [{path: tiny}], dimensions: 64, pooling: mean}}"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """`minilm` with all backends: those that come with emberd, and one that cannot be imported."""
    home = tmp_path_factory.mktemp("full")
    plugin = home / "site/broken-1.dist-info"
    plugin.mkdir(parents=True)
    (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (plugin / "entry_points.txt").write_text("[emberd.backends]\nbroken = no_such_module:It\n")
    environ = clean_environ(home) | {"PYTHONPATH": str(home / "site")}
    return Report("minilm", "--full", home=home, environ=environ)


@pytest.mark.slow
def test_minilm_passes_every_check(full: Report) -> None:
    assert (full.code, full.ok) == (0, True)
    verdicts = {row["check"]: row["verdict"] for row in full.rows}
    assert {check for check, verdict in verdicts.items() if verdict == "ok"} >= {
        "published hashes", "load", "space", "dimensions", "pooling", "finite", "unit length",
        "alone = batch = shuffled", "shortest text", "longest text", "paraphrases",
        "precision loss", "reference vectors",
    }  # fmt: skip
    assert "lowest 0.8" in full.row("minilm", "precision loss")["detail"]


@pytest.mark.slow
def test_every_row_has_all_fields_and_a_reason(full: Report) -> None:
    for row in full.rows:
        assert set(row) == {"model", "check", "verdict", "detail", "advice"}
        assert row["detail"]


@pytest.mark.slow
def test_other_backends_agree_or_say_why_they_were_not_asked(full: Report) -> None:
    rows = {
        row["detail"].partition(":")[0]: row for row in full.rows_of("minilm", "backends agree")
    }

    assert rows["broken"]["verdict"] == "skipped"
    assert "no_such_module" in rows["broken"]["detail"]
    assert rows["onnx"]["verdict"] == "skipped"
    assert "has no onnx/model.onnx" in rows["onnx"]["detail"]
    if importlib.util.find_spec("mlx") and importlib.util.find_spec("openvino"):
        others = {name: row["verdict"] for name, row in rows.items()}
        assert {others[name] for name in others if name not in ("broken", "onnx")} == {"ok"}


@pytest.mark.slow
def test_a_users_own_model_of_no_english_is_warned_of_and_passes(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(TINY)
    tiny_bert(home / "tiny")

    report = Report("tiny", home=home)

    assert (report.code, report.ok) == (0, True)
    assert report.verdict("tiny", "paraphrases") == "warning"
    assert report.verdict("tiny", "reference vectors") == "skipped"
    assert report.verdict("tiny", "published hashes") == "skipped"


def test_a_model_that_does_not_load_says_why_in_the_table_and_what_to_do(home: Path) -> None:
    home.mkdir()
    (home / "config.yaml").write_text(
        "models: {mine: {sources: [{path: mine}], dimensions: 384, pooling: cls}}"
    )
    copy_minilm(home / "mine")

    done = run_emberd("verify", "mine", home=home)

    shown = done.stdout.decode()
    assert done.returncode == 1
    assert b"pooling" not in done.stderr  # it is said once
    assert {"pooling", "mean", "cls"} <= set(re.findall(r"\w+", shown))
    assert "mine, load: " in shown
    assert "all other checks" in shown


def test_accepting_and_checking_are_two_commands(home: Path) -> None:
    done = run_emberd("verify", "minilm", "--accept", "minilm", home=home)

    assert done.returncode == 2
    assert b"--accept" in done.stderr
