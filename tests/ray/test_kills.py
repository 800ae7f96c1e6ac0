"""What breaks while clients ask: a replica, a node without the ingress, and one with it."""

import os
import signal

import pytest

from tests.ray.busy import ASKERS, Asker, Busy, busy, by_client, by_http, vectors_of
from tests.ray.clusters import Served
from tests.ray.conftest import INGRESS
from tests.serving import wait_for

MODEL = "tiny"
ENOUGH = 20  # answers
WITHIN_S = 180.0


def each_way(served: Served) -> list[Asker]:
    """Return clients of both kinds."""
    other = served.url.replace("127.0.0.1", "localhost")
    return [
        *(by_http(served.url, MODEL) for _ in range(ASKERS)),
        by_client([served.url, other], MODEL),
    ]


def more(asking: Busy, count: int = ENOUGH) -> None:
    """Return once so many further answers have come."""
    until = asking.right + asking.wrong + count
    wait_for(lambda: asking.right + asking.wrong >= until, within_s=WITHIN_S)


def test_a_replica_is_killed_and_nobody_notices(served: Served) -> None:
    wait_for(lambda: len(served.cluster("replicas", MODEL)) == 2, within_s=WITHIN_S)
    victim = served.cluster("replicas", MODEL)[0]

    with busy(each_way(served), vectors_of(served, MODEL)) as asking:
        more(asking)
        os.kill(victim, signal.SIGKILL)
        more(asking)
        wait_for(lambda: served.cluster.running(MODEL) == 2, within_s=WITHIN_S)
        more(asking)

    assert (asking.wrong, dict(asking.failed)) == (0, {})


def test_a_worker_is_killed_and_nobody_notices(served: Served) -> None:
    with busy(each_way(served), vectors_of(served, MODEL)) as asking:
        more(asking)
        os.kill(served.cluster("workers", MODEL)[0], signal.SIGKILL)
        more(asking)

    assert (asking.wrong, dict(asking.failed)) == (0, {})


@pytest.mark.parametrize("has_ingress", [False, True], ids=["without", "with"])
def test_a_node_is_killed(served: Served, has_ingress: bool) -> None:
    """Emberd's client loses nothing; plain HTTP at most what was in flight there."""
    wait_for(lambda: served.cluster.running(INGRESS) == 2, within_s=WITHIN_S)
    node = "two" if has_ingress else "one"  # see `front` in the cluster's driver
    assert (node in served.cluster("nodes_of", INGRESS)) == has_ingress
    other = served.url.replace("127.0.0.1", "localhost")
    right = vectors_of(served, MODEL)
    plain = [by_http(served.url, MODEL) for _ in range(ASKERS)]
    own = [by_client([served.url, other], MODEL) for _ in range(2)]

    with busy(plain, right) as alone, busy(own, right) as ours:
        more(alone)
        more(ours)
        served.cluster("kill_node", node)
        more(alone)
        more(ours)
    served.cluster("add_node", node)

    print(  # noqa: T201 - for `pytest -s`: how many were lost
        f"node {node} {'with' if has_ingress else 'without'} the ingress was killed:",
        f"plain {alone.right} right, failed {dict(alone.failed)};",
        f"emberd.Client {ours.right} right, failed {dict(ours.failed)}",
    )
    assert (alone.wrong, ours.wrong) == (0, 0)
    assert dict(ours.failed) == {}
    # What was in flight there: a request of each at the node's proxy, then perhaps at its ingress.
    assert alone.failed.total() <= 2 * ASKERS
