"""Tables, plots and "not ahead", made of a run's numbers."""

from typing import Any

import behind
import scaling_report

PEER = "sentence-transformers, bf16"


def of(**numbers: float) -> dict[str, Any]:
    return {name: {"median": value, "rounds": [value]} for name, value in numbers.items()}


def a_run(*, gpus: int = 0, peer_texts_per_s: float = 70) -> dict[str, Any]:
    column = {
        "cores": 4, "physical_cores": 4, "shares": "nothing", "gpus": gpus,
        "numbers": {
            "emberd": of(
                bulk_texts_per_s=150, bulk_tokens_per_s=15_000, clients_texts_per_s=100,
                clients_tokens_per_s=10_000, query_p50_ms=3, bulk_server_cores=0.5,
                bulk_workers_cores=3, lengths_long_p90_ms=1280, lengths_texts_per_s=100,
            ),
            "engine": of(best_tokens_per_s=16_000, tokenizer_tokens_per_s=1e6, query_p50_ms=2.5),
            PEER: of(bulk_texts_per_s=peer_texts_per_s, query_p50_ms=2),
        },
    }  # fmt: skip
    return {
        "machine": {
            "date": "2026-11-28", "processor": "One Processor", "processors": 16,
            "threads_a_core": 1, "system": "Linux", "python": "3.11", "emberd_environment": {},
            "gpus": ["A GPU"] if gpus else [],
        },
        "model": {"sizes": "minilm", "weights": "random", "entry": ""},
        "compute": "bf16", "answers": "base64", "tokens_a_text": 99.0,
        "missing": {"fastembed": "No module named 'fastembed'"}, "failed": {}, "versions": {},
        "check": {"emberd": {"cosine": {"lowest": 0.9999}}},
        "runs": [{"command": "scripts/bench --cores 4", "rounds": 2}],
        "columns": {"4 cores": column},
    }  # fmt: skip


def test_a_table_says_what_misses_its_goal() -> None:
    section = scaling_report.section({"scaling-one": a_run()})

    assert "| passages over HTTP, share of that | 94 % | ≥ 80 % |" in section
    assert "| its share of bulk, in tokens | **67 %** | ≥ 70 % |" in section
    assert "| what server and HTTP add to the engine | 0.50 ms | ≤ 0.80 ms |" in section
    assert "| cores used by server and worker in bulk | 3.5 |  |" in section
    assert "as times clients / throughput | 2.0 × | ≤ 3.5 × |" in section
    assert f"| emberd over HTTP / {PEER} | 2.1 × | ≥ 2.0 × |" in section
    assert "under 20 words" not in section  # nobody measured it
    assert "- Missing: fastembed (No module named 'fastembed')." in section
    assert "4 cores: on 4 processors of 4 physical cores, clients on other cores" in section


def test_columns_stand_from_the_fewest_cores_up_and_are_compared_with_those() -> None:
    run = a_run()
    few, many = run["columns"]["4 cores"], a_run()["columns"]["4 cores"]
    many["cores"] = 16
    many["numbers"]["emberd"] |= of(bulk_texts_per_s=450, first_ms=480)
    run["columns"] = {"16 cores": many, "4 cores": few}

    section = scaling_report.section({"scaling-one": run})

    assert "|  | 4 cores | 16 cores | goal |" in section
    assert "| times the passages of 4 cores |  | 3.00 × |  |" in section
    assert "| first answer after a start |  | **0.48 s** | ≤ 0.45 s |" in section


def test_more_gpus_are_compared_with_one_and_peers_with_those_on_as_many() -> None:
    run = a_run(gpus=1)
    two = a_run(gpus=2)["columns"]["4 cores"]
    two["numbers"]["emberd"] |= of(bulk_texts_per_s=270)
    del two["numbers"]["engine"]  # it is one process
    run["columns"] = {"1 GPU": run["columns"]["4 cores"], "2 GPUs": two}

    section = scaling_report.section({"scaling-two": run})

    assert "| times the passages of one GPU |  | 1.80 × |  |" in section
    assert "| its share of as many times one |  | 90 % | ≥ 90 % |" in section
    assert "| engine in process | 16,000 tokens/s |  |  |" in section
    assert f"| emberd over HTTP / {PEER} | 2.1 × | 3.9 × | ≥ 2.0 × |" in section
    assert len([*behind.of_scaling(run)]) == 4


def test_cores_are_drawn_as_lines_and_gpus_as_bars() -> None:
    [lines] = scaling_report.plots_of("scaling-one", a_run())
    [bars] = scaling_report.plots_of("scaling-two", a_run(gpus=1))

    assert lines["lines"] == {"emberd": [[4, [150]]], PEER: [[4, [70]]]}
    assert bars["values"] == {"emberd, 4 cores": [150], f"{PEER}, 4 cores": [70]}
    assert bars["own"] == ["emberd, 4 cores"]


def test_what_somebody_else_does_better_is_named() -> None:
    table = behind.table([*behind.of_scaling(a_run()), *behind.of_scaling(a_run(gpus=1))])

    assert "Of 4 figures" in table and " 2 are better elsewhere" in table
    assert "passages" not in table
    row = f"one short query, p50 | 3 ms | {PEER}, in process | 2 ms | 1.50 × |"
    assert f"| One Processor, 4 cores, minilm | {row}" in table
    assert f"| A GPU, 4 cores, minilm | {row}" in table


def test_a_profile_says_where_the_time_goes_in_the_busiest_threads() -> None:
    run = a_run()
    thread = {"name": "MainThread", "cores": 0.973, "functions": {"feed in emberd/wire.py": 0.41}}
    run["columns"]["4 cores"]["profile"] = {"server": [thread], "worker": []}

    section = scaling_report.section({"scaling-one": run})

    assert "| server: MainThread | 0.97 | `feed in emberd/wire.py` 41% |" in section
