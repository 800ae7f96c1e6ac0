"""A model is replaced while clients ask: each gets an answer, of the old space or of the new.

It comes last in this folder, as it leaves the cluster with another model and one more node.
"""

from emberd.backends.tiny_bert import tiny_bert
from tests.ray.busy import ASKERS, busy, by_http, vectors_of
from tests.ray.clusters import Served
from tests.ray.conftest import CHANGES, OPTIONS
from tests.serving import wait_for

WITHIN_S = 600.0


def test_a_model_is_replaced_without_a_failed_request(served: Served) -> None:
    before = vectors_of(served, "tiny")
    was = served.row("tiny")["fingerprint"]
    tiny_bert(served.home / "next", seed=3)
    config = served.config.replace(
        f"tiny:\n    {{sources: [{{path: {served.home / 'tiny'}}}]",
        f"tiny:\n    {{sources: [{{path: {served.home / 'next'}}}]",
    )
    assert config != served.config

    served.cluster("add_node", "spare")  # a node takes one ingress, and the next ones come first
    with busy([by_http(served.url, "tiny") for _ in range(ASKERS)], before) as asking:
        wait_for(lambda: asking.right > 10, within_s=120)
        # Not settled: where no replica is left, a proxy ends once it has no request in progress.
        served.deploy(config, *OPTIONS, change=CHANGES, settled=False)
        wait_for(lambda: asking.wrong > 10, within_s=WITHIN_S)  # these are the new model's
        wait_for(lambda: served.cluster("status")["state"] == "RUNNING", within_s=WITHIN_S)
    wait_for(lambda: served.cluster("is_settled"), within_s=WITHIN_S)

    assert dict(asking.failed) == {}
    assert served.row("tiny")["fingerprint"] != was
    assert asking.are_of(vectors_of(served, "tiny"))
