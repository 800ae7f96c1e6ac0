"""More than a server can give, for some seconds; by hand: `python -m tests.soak.overload`."""

import json

from tests.soak.overload import is_right, run


def test_who_cannot_be_served_is_refused_and_the_rest_gets_the_right_vectors() -> None:
    result = run(seconds=3, times=10, texts=8, words=30, max_queued_texts=40, seed=1)

    assert is_right(result), json.dumps(result)
    assert result["statuses"]["200"]
    assert result["statuses"]["429"]
