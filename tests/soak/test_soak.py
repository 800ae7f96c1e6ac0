"""The soak, for as long as a test may take; by hand: `python -m tests.soak.soak --hours 1`."""

from tests.soak.soak import is_good, run


def test_nothing_is_wrong_or_lost_under_load_and_faults() -> None:
    lines: list[str] = []

    result = run(
        minutes=0.75, clients=6, kill_every_s=2.0, hang_every_s=40.0, seed=20, log=lines.append
    )

    # In less than a minute the memory of a server has not settled: it may grow by a fifth here.
    assert is_good(result, growth=1.2), result
    assert result["kills"] >= 5
    assert result["vectors"] >= 100
