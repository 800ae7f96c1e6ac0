"""Why models are unloaded, as `/metrics` counts it, with real models."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serving import Server, wait_for

ONE_AT_A_TIME = "limits: {max_loaded: 1}\n"
FULL = "models: {minilm-f32: {compute: f32}}\n"
SHORT = "models: {minilm-f32: {compute: f32, idle_unload: 1s}}\n"


def unloads(server: Server) -> dict[tuple[str, str], float]:
    """Return how often each model left for each reason."""
    text = server.http.get("/metrics").text
    return {
        (sample.labels["model"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "emberd_unloads_total"
    }


@pytest.mark.slow
def test_every_reason_is_counted_under_its_name(home: Path) -> None:
    with Server(home, config=ONE_AT_A_TIME) as own:
        own.embed("text")
        own.embed("text", model="minilm-f32")  # the other one makes room
        assert unloads(own) == {("minilm", "lru"): 1}

        (worker,) = own.workers()
        worker.kill()
        own.embed("text", model="minilm-f32")
        assert unloads(own)["minilm-f32", "crash"] == 1

        (home / "config.yaml").write_text(ONE_AT_A_TIME + FULL)
        own.http.post("/reload")
        wait_for(lambda: ("minilm-f32", "reload") in unloads(own))
        own.embed("text", model="minilm-f32")

        (home / "config.yaml").write_text(ONE_AT_A_TIME + SHORT)
        own.http.post("/reload")
        wait_for(lambda: ("minilm-f32", "idle") in unloads(own))

        assert set(unloads(own).values()) == {1.0}
