"""A model is replaced while clients ask: each gets an answer, of the old space or of the new."""

from copy import deepcopy

from emberd.backends.tiny_bert import tiny_bert
from tests.ray.busy import ASKERS, TEXTS, busy, by_http
from tests.ray.clusters import Served
from tests.ray.conftest import CHANGES
from tests.serving import wait_for


def test_a_model_is_replaced_without_a_failed_request(served: Served) -> None:
    served.deploy(served.config, "--ingresses", "2", "--cpus", "0.5", change=CHANGES)
    before = {text: served.embed(text, model="tiny")["embeddings"] for text in TEXTS}
    was = served.row("tiny")["fingerprint"]
    tiny_bert(served.home / "next", seed=3)
    config = served.config.replace(
        f"tiny: {{sources: [{{path: {served.home / 'tiny'}}}]",
        f"tiny: {{sources: [{{path: {served.home / 'next'}}}]",
        1,
    )
    assert config != served.config

    with busy([by_http(served.url, "tiny") for _ in range(ASKERS)], before) as asking:
        wait_for(lambda: asking.right > 10, within_s=120)
        options = ("--ingresses", "2", "--cpus", "0.5")
        said = served.deploy(config, *options, change=deepcopy(CHANGES))
        assert said["state"] == "RUNNING", said
        wait_for(lambda: asking.wrong > 10, within_s=120)  # these are the new model's

    assert dict(asking.failed) == {}
    after = served.embed(TEXTS[0], model="tiny")
    assert after["fingerprint"] != was
    assert served.embed(TEXTS[0], model="tiny")["embeddings"] == after["embeddings"]
