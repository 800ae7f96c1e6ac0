"""All replicas of a model give the same vectors: an odd one never answers, and says why."""

from emberd.backends.tiny_bert import tiny_bert
from tests.ray.clusters import Served
from tests.ray.conftest import CHANGES, INGRESS, OPTIONS, TWO
from tests.serving import wait_for

WITHIN_S = 180.0


def warnings_of(served: Served) -> list[dict[str, str]]:
    """Return what one of the ingresses says about refused replicas of the model."""
    warnings = served.http.get("/health").json()["warnings"]
    found = (each for each in warnings if each["code"] == "replica_refused")
    return [each for each in found if "odd" in each["message"]]


def test_an_odd_replica_is_refused(served: Served) -> None:
    body = {"texts": ["a cat"], "model": "odd"}
    first = served.http.post("/embed", json=body)

    tiny_bert(served.home / "odd", seed=2)  # as if the second node had other files
    change = CHANGES | {"odd": {"autoscaling_config": TWO}}
    served.deploy(served.config, *OPTIONS, change=change, settled=False)
    (refused,) = wait_for(lambda: warnings_of(served), within_s=WITHIN_S)

    assert "its vectors are of space" in refused["message"]
    assert "print the Serve config again" in refused["hint"]
    for _ in range(20):
        answer = served.http.post("/embed", json=body)
        assert answer.content == first.content
        assert answer.headers["x-emberd-compute"] == first.headers["x-emberd-compute"]

    served.deploy(served.config, *OPTIONS, change=CHANGES)  # nobody tries to start it any more
    wait_for(lambda: not any(warnings_of(served) for _ in range(8)), within_s=WITHIN_S)


def test_printed_anew_the_files_of_now_are_served(served: Served) -> None:
    body = {"texts": ["a cat"], "model": "odd"}
    before = served.http.post("/embed", json=body).headers["x-emberd-fingerprint"]
    tiny_bert(served.home / "odd", seed=3)
    # The next ingresses start beside the old ones, so a node has to take two.
    anywhere = {INGRESS: {"ray_actor_options": CHANGES[INGRESS]["ray_actor_options"]}}

    said = served.deploy(served.config, *OPTIONS, change=CHANGES | anywhere, printed="anew")

    assert said["state"] == "RUNNING", said
    answer = served.http.post("/embed", json=body)
    assert answer.status_code == 200
    assert answer.headers["x-emberd-fingerprint"] != before
