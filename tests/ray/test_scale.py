"""From no replica to several, and back, with the memory returned."""

from tests.ray.busy import busy, by_http, vectors_of
from tests.ray.clusters import Served
from tests.serving import wait_for

WITHIN_S = 180.0


def test_from_zero_to_two_and_back(served: Served) -> None:
    wait_for(lambda: served.cluster.running("short") == 0, within_s=WITHIN_S)
    assert not served.cluster("workers", "short")
    right = vectors_of(served, "short")

    with busy([by_http(served.url, "short") for _ in range(12)], right) as asking:
        wait_for(lambda: served.cluster.running("short") == 2, within_s=WITHIN_S)
        wait_for(lambda: len(served.cluster("workers", "short")) == 2, within_s=WITHIN_S)
    assert (asking.wrong, dict(asking.failed)) == (0, {})

    wait_for(lambda: served.cluster.running("short") == 0, within_s=WITHIN_S)
    wait_for(lambda: not served.cluster("workers", "short"), within_s=WITHIN_S)
    wait_for(lambda: not served.cluster("replicas", "short"), within_s=WITHIN_S)


def test_unloading_ends_the_workers_of_all_replicas(served: Served) -> None:
    served.embed("a cat", model="tiny")
    before = served.cluster("workers", "tiny")

    said = served.http.post("/unload", json={"model": "tiny"})

    assert said.json() == {"status": "unloaded", "models": ["tiny"]}
    assert not {*before} & {*served.cluster("workers", "tiny")}
    wait_for(lambda: {served.row("tiny")["state"] for _ in range(8)} == {"cold"})  # both ingresses
    served.embed("a cat", model="tiny")  # it starts when asked
