"""Which columns and rows the tables of models have."""

from dataclasses import replace

from emberd.cli.render import model_table, process_table, start_table
from emberd.pool.status import ModelStatus
from emberd.worker.wire import Progress

READY = ModelStatus(
    kind="embed",
    name="minilm", aliases=[], roles={}, prompts={}, dimensions=384, pooling="mean",
    precision="4bit",
    max_tokens=512, tested="reference",
    fingerprint="f", state="ready", backend="openvino", compute="bf16", pinned=False,
    memory_bytes=2**20, replicas=1, in_flight=1, queued=2, idle_s=None, unloads_in_s=90.0,
    loads=1, last_load_s=0.5, phases_s=None, progress=None, last_error=None, notes=[],
    pulled=True, files_bytes=1, files_changed_s=1, pid=7, pids=[7],
)  # fmt: skip


def test_why_a_model_failed_has_a_column_only_if_one_failed() -> None:
    failed = replace(READY, state="failed", last_error="[no] memory", unloads_in_s=None)

    without, with_error = process_table([READY]), process_table([READY, failed])

    assert "last error" not in without.columns
    assert [row[-1] for row in with_error.rows] == ["", r"\[no] memory"]
    assert with_error.rows[1][6] == ""  # nothing says when it leaves


def test_a_start_shows_how_far_it_is() -> None:
    downloading = replace(
        READY, state="starting", progress=Progress(phase="downloading", done=1, total=4)
    )
    loading = replace(READY, state="starting", progress=Progress(phase="loading"))

    states = [row[1] for row in process_table([downloading, loading]).rows]

    assert [state.partition("[/]")[2] for state in states] == [" (downloading 25%)", " (loading)"]


def test_the_last_start_of_a_model_is_shown_in_its_parts() -> None:
    started = replace(READY, phases_s={"spawn": 0.012, "import": 0.3, "load": 0.1})

    sheet = start_table([READY, started])

    assert sheet.columns[1:4] == ("spawn", "import", "files")
    assert sheet.rows == [("minilm", "12", "300", "", "100", "", "", "412")]


def test_several_workers_of_a_model_are_counted() -> None:
    both = replace(READY, replicas=2, pids=[7, 8])

    cells = [row[3] for row in process_table([READY, both]).rows]

    assert cells == ["openvino bf16", "openvino bf16 x 2"]


LISTED = {
    "name": "m", "kind": "embed", "default": False, "dimensions": 8, "pooling": "cls",
    "precision": "f32", "max_tokens": 512, "roles": {}, "licence": None, "tested": "no",
    "pulled": True, "fingerprint": None, "runs_on": ["mlx", "openvino"], "why_not": None,
}  # fmt: skip


def test_where_a_model_runs_is_shown_or_in_one_word_why_nowhere() -> None:
    nowhere = {**LISTED, "runs_on": [], "why_not": "architecture"}

    sheet = model_table([LISTED, nowhere, {**nowhere, "why_not": "unknown"}])

    column = sheet.columns.index("runs on")
    assert [row[column] for row in sheet.rows] == [
        "mlx, openvino", "[red]no[/]: architecture", "[dim]unknown[/]",
    ]  # fmt: skip


def test_a_re_ranker_is_marked_and_has_no_dimensions() -> None:
    reranker = {**LISTED, "kind": "rerank", "dimensions": 1}

    sheet = model_table([LISTED, reranker])

    assert [row[:2] for row in sheet.rows] == [("m", "8"), ("m [cyan](rerank)[/]", "")]


def test_120_columns_show_where_a_model_runs_and_how_it_was_tested() -> None:
    long = {
        **LISTED,
        "name": "multilingual-e5-large",
        "roles": {f"multilingual-e5-large:{role}": role for role in ("query", "document")},
        "licence": "Apache-2.0",
        "tested": "architecture",
        "fingerprint": "0123456789abcdef",
    }

    kept, width = model_table([long]).fitted(120)

    assert width <= 120
    assert {"model", "dimensions", "max tokens", "runs on", "tested", "files"} <= {*kept}
