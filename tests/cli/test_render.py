"""What commands print of numbers that others measured."""

import pytest

from emberd.cli.render import show_bench


def test_a_benchmarks_numbers_have_rows_and_those_that_are_missing_have_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        {"words": 9.0, "texts_per_s": 1234.56, "tokens_per_s": 9000.0},
        {"words": 200.0, "texts_per_s": 55.5, "tokens_per_s": 8000.0},
    ]
    numbers = {"first_ms": 123.456, "short_p50_ms": 4.56, "used_cores": 13.62, "machine_cores": 16}

    show_bench({"model": "minilm", "url": "http://x", "numbers": numbers, "throughput": rows})

    head, *lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert head == ["minilm", "http://x"]
    assert ["first", "answer", "123", "ms"] in lines
    assert ["one", "client,", "one", "query,", "p50", "4.6", "ms"] in lines
    assert ["the", "job", "alone:", "cores", "used", "13.6", "of", "16"] in lines
    assert ["9", "1234.6", "9000"] in lines
    assert ["200", "55.5", "8000"] in lines
    assert not [line for line in lines if line[:1] == ["cold:"]]
