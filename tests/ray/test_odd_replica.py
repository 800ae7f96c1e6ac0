"""All replicas of a model give the same vectors: an odd one never answers, and says why."""

from emberd.backends.tiny_bert import tiny_bert
from tests.ray.clusters import Served
from tests.ray.conftest import CHANGES, OPTIONS, TWO
from tests.serving import wait_for

WITHIN_S = 180.0


def test_an_odd_replica_is_refused(served: Served) -> None:
    first = served.http.post("/embed", json={"texts": ["a cat"], "model": "odd"})

    tiny_bert(served.home / "odd", seed=2)  # as if the second node had other files
    change = CHANGES | {"odd": {"autoscaling_config": TWO}}
    served.deploy(served.config, *OPTIONS, change=change, settled=False)
    refused = wait_for(
        lambda: next(
            (
                each
                for each in served.http.get("/health").json()["warnings"]
                if each["code"] == "replica_refused" and "odd" in each["message"]
            ),
            None,
        ),
        within_s=WITHIN_S,
    )

    assert "its vectors are of space" in refused["message"]
    for _ in range(20):
        answer = served.http.post("/embed", json={"texts": ["a cat"], "model": "odd"})
        assert answer.content == first.content
        assert answer.headers["x-emberd-compute"] == first.headers["x-emberd-compute"]

    served.deploy(served.config, *OPTIONS, change=CHANGES)  # nobody tries to start it any more
