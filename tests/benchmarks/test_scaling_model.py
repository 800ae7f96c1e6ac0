"""The model of many replicas, where arithmetic says what must come out."""

import re

import pytest
from scaling_model import Hardware, Ingress, Load, Policy, autoscaled, run
from scaling_model_report import check, measured_ingress, serve_ingress

SLOW = Hardware(name="slow", pass_s=0.01, tokens_per_s=1000, batch_tokens=100, start_s=5)
FREE = Ingress(request_s=1e-9, text_s=0)
ONE = Load(texts=1, tokens=10, clients=1)


def test_one_client_waits_for_a_pass_and_its_tokens() -> None:
    found = run(SLOW, FREE, ONE, 1, answers=500)

    assert found.p50_ms == pytest.approx(20, rel=0.01)  # 10 ms, and 10 tokens of 1 ms
    assert found.texts_per_s == pytest.approx(50, rel=0.02)


def test_what_waits_is_computed_together() -> None:
    found = run(SLOW, FREE, Load(texts=1, tokens=10, clients=10), 1, answers=2000)

    assert found.texts_per_s == pytest.approx(10 / 0.12, rel=0.02)  # one, then the nine others
    assert found.full == "the replicas"


@pytest.mark.parametrize(
    ("ingresses", "rate", "full"), [(1, 1000, "the ingress"), (4, 2900, "the replicas")]
)
def test_replicas_add_up_until_the_ingress_is_full(ingresses: int, rate: float, full: str) -> None:
    ingress = Ingress(request_s=0.01, text_s=0, count=ingresses)

    found = run(SLOW, ingress, Load(texts=10, tokens=10, clients=256), 32, answers=4000)

    assert found.texts_per_s == pytest.approx(rate, rel=0.1)
    assert found.full == full


def test_replicas_come_with_the_requests_and_go_after_them() -> None:
    policy = Policy(target_ongoing=2, up_s=1, down_s=20, look_back_s=5, most=8)

    took, there = autoscaled(
        SLOW, FREE, ONE, policy, lambda now: 100.0 if 50 < now < 150 else 0.0, until_s=300
    )

    assert there[40] == 0 and there[-1] == 0
    assert 2 <= max(there) <= 8
    early = [seconds for at, seconds in took if at < 60]
    late = [seconds for at, seconds in took if 100 < at < 150]
    assert max(early) > SLOW.start_s and max(late) < 1
    assert len(took) == pytest.approx(10_000, rel=0.05)


def test_the_numbers_are_there_that_it_is_checked_against() -> None:
    ingress = measured_ingress()

    assert 1e-3 < serve_ingress().request_s < 1e-2
    assert 1e-4 < ingress.request_s < 1e-3 and 1e-6 < ingress.text_s < 1e-4


def test_it_says_what_was_measured_within_a_quarter() -> None:
    _, *lines = check()

    assert len(lines) == 32  # GPUs and cores over HTTP, and sleeping replicas behind Serve
    for line in lines:
        measured, said = map(int, re.findall(r"(\d+)/s", line))
        assert said == pytest.approx(measured, rel=0.25), line
