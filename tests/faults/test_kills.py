"""Some deaths of a worker under load; by hand: `python -m tests.faults.kills --kills 200`."""

import pytest

from tests.faults.kills import run


@pytest.mark.slow
def test_no_request_fails_however_often_the_worker_is_killed() -> None:
    result = run(kills=8, seed=4, clients=6)

    assert not result["failures"], result
    assert result["kills"] == 8
    assert result["recoveries"] >= 1
    assert result["vectors"] >= 50
