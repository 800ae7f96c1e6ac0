"""The soak, for as long as a test may take; by hand: `python -m tests.soak.soak --hours 1`."""

import json

from tests.soak.soak import faults, run


def test_nothing_is_wrong_or_lost_under_load_and_faults() -> None:
    lines: list[str] = []

    result = run(
        minutes=0.75, clients=6, kill_every_s=2.0, hang_every_s=40.0, seed=20, log=lines.append
    )

    # In less than a minute the memory of a server has not settled: it may grow by a fifth here.
    assert not faults(result, growth=1.2), json.dumps(result)
    assert result["kills"] >= 2
    assert result["vectors"] >= 100
