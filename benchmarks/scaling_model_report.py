"""What the model of many replicas says, with numbers that were measured.

python benchmarks/scaling_model_report.py check        beside what was measured
python benchmarks/scaling_model_report.py replicas     1 to 64: rate, waiting, what is full
python benchmarks/scaling_model_report.py jobs         10^9 texts: hours of a machine
python benchmarks/scaling_model_report.py autoscaling  a day's queries, by Ray Serve's policy
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from scaling_model import Hardware, Ingress, Load, Outcome, Policy, autoscaled, run

RESULTS = Path(__file__).parent / "results"
REPLICAS = (1, 2, 4, 8, 16, 32, 64)
PASSAGE = 99.1  # tokens: the benchmark's passages
BULK = Load(texts=100, tokens=PASSAGE, clients=8)
SINGLE = Load(texts=1, tokens=PASSAGE, clients=64)
XEON = "Xeon with AMX (family 6, model 207)"
# `pass_s`: the time of a query in the engine; `tokens_per_s`: that of a bulk run, of which the
# passes are taken off; `start_s`: `first_ms`.
HARDWARE = {
    "h200-bert-base": Hardware(
        name="one H200, BERT-base, f16", pass_s=2e-3, tokens_per_s=900e3, batch_tokens=32768,
        start_s=1.4,
    ),
    "h200-minilm": Hardware(
        name="one H200, MiniLM, f16", pass_s=1.8e-3, tokens_per_s=1.9e6, batch_tokens=32768,
        start_s=1.2,
    ),
    "xeon-16": Hardware(
        name=f"16 cores of a {XEON}, MiniLM, bf16", pass_s=2.2e-3, tokens_per_s=118e3,
        batch_tokens=16 * 512, start_s=0.4,
    ),
    "xeon-2": Hardware(
        name=f"2 cores of a {XEON}, MiniLM, bf16", pass_s=1.7e-3, tokens_per_s=24e3,
        batch_tokens=2 * 512, start_s=0.4,
    ),
}  # fmt: skip
MEASURED = (  # hardware, file, column, replicas
    ("h200-bert-base", "scaling-h200-bert-base.json", "1 GPU", 1),
    ("h200-bert-base", "scaling-h200-bert-base.json", "2 GPUs", 2),
    ("h200-minilm", "scaling-h200-minilm.json", "1 GPU", 1),
    ("xeon-16", "scaling-xeon-amx.json", "16 cores", 1),
    ("xeon-2", "scaling-xeon-amx.json", "2 cores", 1),
)
SLEEPERS = Load(texts=64, tokens=7, clients=6)  # of `ray_serve.py`, for each replica
SLEEPING = (("ray_serve-xeon-amx.json", "16 cores"), ("ray_serve-epyc.json", "2 cores"))
SLOPE = "ray_slope-xeon-amx.json"  # those that sleep as if they were H200s, with BERT-base
FULL = "8"  # of them: more than one ingress keeps busy


def numbers_of(file: str, column: str) -> dict[str, float]:
    """Return the medians of what was measured of emberd."""
    found = json.loads((RESULTS / file).read_text())["columns"][column]["numbers"]["emberd"]
    return {key: each["median"] for key, each in found.items()}


def measured_ingress() -> Ingress:
    """Return what the HTTP app's event loop takes, as measured beside GPUs, where it was busiest.

    A run has the processor time of the server in cores: its time for each request, and with it for
    each text, times the requests a second. Requests of one text and of many give the two.
    """
    requests, texts = [], []
    for name, file, column, _ in MEASURED:
        if not name.startswith("h200"):
            continue
        numbers = numbers_of(file, column)
        many, one = (
            numbers[f"{key}_server_cores"] / numbers[f"{key}_texts_per_s"] * load.texts
            for key, load in (("bulk", BULK), ("clients", SINGLE))
        )
        texts.append((many - one) / (BULK.texts - 1))
        requests.append(one - texts[-1])
    return Ingress(request_s=median(requests), text_s=median(texts))


def serve_ingress() -> Ingress:
    """Return what Serve's ingress takes for a request of many texts, as measured when it was full.

    It is more than that of the same app alone: the request goes on to a replica, and comes back.
    """
    (alone,) = (run for run in slopes() if run["ingresses"] == 1)
    return Ingress(request_s=BULK.texts / alone["bulk"][FULL], text_s=0.0)


def slopes() -> list[dict[str, Any]]:
    """Return the runs of `SLOPE` that had Serve: with one ingress, and with several."""
    runs: list[dict[str, Any]] = json.loads((RESULTS / SLOPE).read_text())["runs"]
    return [run for run in runs if run.get("bulk")]


def of_slopes() -> Iterator[str]:
    """Yield lines: many that sleep, as measured, and what the model makes of the rate of one."""
    for run_of in slopes():
        behind = replace(serve_ingress(), count=run_of["ingresses"])
        for where, ingress, name in (
            ("bulk_alone", measured_ingress(), "emberd serve"),
            ("bulk", behind, f"Serve, {run_of['ingresses']} ingress(es)"),
        ):
            rates = run_of[where]
            for count, rate in rates.items():
                clients = run_of["clients"] * int(count)
                load = replace(SLEEPERS, texts=run_of["texts"], clients=clients)
                found = run(sleeping(1 / rates["1"]), ingress, load, int(count))
                yield beside(f"{name}, {count} as H200s", rate, found)


def check() -> Iterator[str]:
    """Yield lines: what the model says beside what was measured."""
    yield f"{'':34}{'measured':>18}{'model':>18}"
    for name, file, column, replicas in MEASURED:
        numbers = numbers_of(file, column)
        bulk = replace(BULK, clients=BULK.clients * replicas)
        for load, key in ((bulk, "bulk"), (SINGLE, "clients")):
            rate, p50 = numbers[f"{key}_texts_per_s"], numbers[f"{key}_p50_ms"]
            found = run(HARDWARE[name], measured_ingress(), load, replicas)
            yield (
                f"{name}, {column}, {key:8}".ljust(34)
                + f"{rate:9.0f}/s {p50:5.0f} ms{found.texts_per_s:9.0f}/s {found.p50_ms:5.0f} ms"
            )
    for file, where in SLEEPING:
        figures = json.loads((RESULTS / file).read_text())
        for count, rate in figures["bulk"].items():
            load = replace(SLEEPERS, clients=SLEEPERS.clients * int(count))
            found = run(sleeping(figures["sleep_s"]), measured_ingress(), load, int(count))
            yield beside(f"Serve, {count} that sleep, {where}", rate, found)
    yield from of_slopes()


def beside(name: str, rate: float, found: Outcome) -> str:
    """Return a line: a measured rate, and what the model says."""
    return f"{name:34}{rate:9.0f}/s {'':8}{found.texts_per_s:9.0f}/s {found.p50_ms:5.0f} ms"


def sleeping(text_s: float) -> Hardware:
    """Return the encoder of `ray_serve.py`, which sleeps so long for each text."""
    return Hardware(
        name="sleeps", pass_s=0.0, tokens_per_s=SLEEPERS.tokens / text_s,
        batch_tokens=2 * 512, start_s=0.4,
    )  # fmt: skip


def replicas(name: str, count: int, request_s: float | None) -> Iterator[str]:
    """Yield lines: 1 to 64 replicas, with as many clients as are needed to fill them.

    `count` ingresses; `request_s` is the time of each for a request, if not what was measured.
    """
    hardware = HARDWARE[name]
    yield f"{hardware.name}; ingresses: {count}"
    for load, measured in ((BULK, serve_ingress()), (SINGLE, measured_ingress())):
        ingress = replace(measured, count=count, request_s=request_s or measured.request_s)
        one = 0.0
        for many in REPLICAS:
            given = replace(load, clients=load.clients * many)
            found = run(hardware, ingress, given, many, answers=max(3000, 40 * given.clients))
            one = one or found.texts_per_s
            yield (
                f"{load.texts:4} texts a request {many:3} replicas"
                f" {found.texts_per_s:9.0f} texts/s {found.texts_per_s / one / many:5.0%} each,"
                f" p50 {found.p50_ms:5.0f} ms, p99 {found.p99_ms:5.0f} ms, full: {found.full}"
            )


def jobs(price: float | None, texts: float = 1e9) -> Iterator[str]:
    """Yield lines: how long one replica of each takes; if an ingress does not end it, 64 of them.

    `price` is that of an hour of the hardware.
    """
    for hardware in HARDWARE.values():
        found = run(hardware, measured_ingress(), BULK, 1)
        hours = texts / found.texts_per_s / 3600
        cost = "" if price is None else f", a million for {price * hours * 1e6 / texts:.4f}"
        yield (
            f"{hardware.name}: {found.texts_per_s:.0f} texts/s; a million in"
            f" {1e6 / found.texts_per_s:,.0f} s; {texts:.0e} in {hours:,.1f} h, by 64 in"
            f" {hours / 64:,.1f} h{cost}"
        )


def day(name: str, policy: Policy, *, hour_s: float = 120.0) -> Iterator[str]:
    """Yield lines: passages at a day's rate: none at night, at one o'clock four replicas' worth.

    An hour has two minutes, so a rate changes thirty times as fast as that of a real day.
    """
    hardware, load = HARDWARE[name], Load(texts=1, tokens=PASSAGE)
    most = 4 * hardware.tokens_per_s / load.tokens

    def rate(now: float) -> float:
        return most * max(0.0, math.sin(math.pi * (now / hour_s - 7) / 12))

    took, there = autoscaled(hardware, measured_ingress(), load, policy, rate, until_s=24 * hour_s)
    for hour in range(0, 24, 3):
        at, end = hour * hour_s, (hour + 3) * hour_s
        found = sorted(1000 * each for when, each in took if at <= when < end)
        seen = there[int(at / policy.every_s) : int(end / policy.every_s)]
        waits = "nobody asked"
        if found:
            p50_ms, p99_ms = found[len(found) // 2], found[len(found) * 99 // 100]
            waits = f"p50 {p50_ms:6.1f} ms, p99 {p99_ms:8.1f} ms"
        scale = f"{min(seen)} to {max(seen)} replicas"
        yield f"{hour:2} to {hour + 3:2} h: {len(found):7} queries, {scale}, {waits}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("check", "replicas", "jobs", "autoscaling"))
    parser.add_argument("--hardware", choices=HARDWARE)
    parser.add_argument("--ingresses", type=int, default=1)
    parser.add_argument("--request-ms", type=float, help="of an ingress, for each request")
    parser.add_argument("--price", type=float, help="of an hour of the hardware")
    given = parser.parse_args(arguments)
    request_s = given.request_ms / 1000 if given.request_ms else None
    hardware = given.hardware or "h200-bert-base"
    reports: dict[str, Callable[[], Iterator[str]]] = {
        "check": check,
        "replicas": lambda: replicas(hardware, given.ingresses, request_s),
        "jobs": lambda: jobs(given.price),
        "autoscaling": lambda: day(given.hardware or "xeon-2", Policy()),
    }
    for line in reports[given.what]():
        print(line)


if __name__ == "__main__":
    main()
