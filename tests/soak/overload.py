"""Ask for ten times what a server can give: what it still gives, to whom, and how soon.

    python -m tests.soak.overload --seconds 30 --json overload.json

First some clients ask one request after another: that is what the server can give. Then requests
come at ten times that rate, whether the earlier ones are answered or not; then the clients again,
as a machine is not the same from minute to minute. The rest has to be refused at once, with 429 or
503 and Retry-After; what is served has to be right, and nearly as much as before. Prints one JSON
object; exit code 1 when it is not so. Real MiniLM embeds.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from emberd.bench.client import FRESH
from emberd.bench.texts import Texts
from tests.serving import Server

CONFIG = "limits: {{max_queued_texts: {max_queued_texts}, request_timeout: 60s}}\n"
SAME = 0.999
CLIENTS = 8  # as many as keep it busy
PATIENCE_S = 90.0
BODIES = 50  # different ones
RAW = "application/octet-stream"


@dataclass
class Outcome:
    """What became of the requests of one phase."""

    statuses: Counter[int] = field(default_factory=Counter)
    served_at_s: list[float] = field(default_factory=list)
    served_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    lowest_cosine: float = 1.0


class Overload:
    """One server, and requests of equal size for it."""

    def __init__(self, server: Server, texts: int, words: int, seed: int) -> None:
        made = Texts(seed)
        self.texts = texts
        self.server = server
        requests = [made.take(texts, words) for _ in range(BODIES)]
        self.bodies = [json.dumps({"texts": request}).encode() for request in requests]
        known = [server.embed(*request)["embeddings"] for request in requests]
        self.known = np.array(known, np.float32)

    async def ask(self, http: httpx2.AsyncClient, number: int, outcome: Outcome) -> None:
        """Send one request and note what became of it."""
        number %= BODIES
        headers = FRESH | {"Content-Type": "application/json", "Accept": RAW}
        began_s = time.monotonic()
        try:
            answer = await http.post("/embed", content=self.bodies[number], headers=headers)
        except httpx2.HTTPError as error:
            outcome.failures[type(error).__name__] += 1
            return
        now_s = time.monotonic()
        outcome.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            outcome.served_at_s.append(now_s)
            outcome.served_s.append(now_s - began_s)
            found = np.frombuffer(answer.content, "<f4").reshape(self.texts, -1)
            cosine = float((found * self.known[number]).sum(axis=1).min())
            outcome.lowest_cosine = min(outcome.lowest_cosine, cosine)
        elif answer.status_code in (429, 503) and "retry-after" in answer.headers:
            outcome.refused_s.append(now_s - began_s)
        else:
            outcome.failures[f"{answer.status_code}: {answer.text[:200]}"] += 1

    def connect(self) -> httpx2.AsyncClient:
        """Return a client without a limit on connections."""
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx2.AsyncClient(
            base_url=self.server.url, timeout=PATIENCE_S, limits=limits, trust_env=False
        )

    async def in_turns(self, seconds: float) -> Outcome:
        """Let clients ask, each one request after another."""
        outcome = Outcome()
        until_s = time.monotonic() + seconds

        async def client(number: int) -> None:
            while time.monotonic() < until_s:
                await self.ask(http, number, outcome)
                number += CLIENTS

        async with self.connect() as http:
            await asyncio.gather(*(client(number) for number in range(CLIENTS)))
        return outcome

    async def at_rate(self, per_second: float, seconds: float) -> Outcome:
        """Send requests at even intervals, whatever becomes of them; ask for /health as well."""
        outcome = Outcome()
        count = int(per_second * seconds)
        began_s = time.monotonic()

        async def health() -> None:
            async with self.connect() as http:
                while time.monotonic() < began_s + seconds:
                    asked_s = time.monotonic()
                    answer = await http.get("/health")
                    outcome.health_s.append(time.monotonic() - asked_s)
                    if answer.status_code != 200:
                        outcome.failures[f"/health: {answer.status_code}"] += 1
                    await asyncio.sleep(0.5)

        async with self.connect() as http, asyncio.TaskGroup() as tasks:
            tasks.create_task(health())
            for number in range(count):
                await asyncio.sleep(began_s + number / per_second - time.monotonic())
                tasks.create_task(self.ask(http, number, outcome))
        return outcome


def run(
    *, seconds: float, times: float, texts: int, words: int, max_queued_texts: int, seed: int
) -> dict[str, Any]:
    """Do it all and return what is to be reported. Rates are texts a second."""
    with tempfile.TemporaryDirectory(prefix="emberd-overload-") as folder:
        config = CONFIG.format(max_queued_texts=max_queued_texts)
        with Server(Path(folder) / "home", config=config) as server:
            subject = Overload(server, texts, words, seed)
            asyncio.run(subject.in_turns(seconds / 3))  # the size of batches settles
            before = asyncio.run(subject.in_turns(seconds))
            offered = times * rate(before, texts)
            under = asyncio.run(subject.at_rate(offered / texts, seconds))
            after = asyncio.run(subject.in_turns(seconds))
            capacity = (rate(before, texts) + rate(after, texts)) / 2
            queued_s = max_queued_texts / capacity
            log = server.log()
    served_s, refused_s = under.served_s or [0.0], under.refused_s or [0.0]
    return {
        "seconds": seconds,
        "capacity": [round(rate(each, texts), 1) for each in (before, after)],
        "offered": round(offered, 1),
        "served": round(rate(under, texts), 1),
        "ratio": round(rate(under, texts) / capacity, 3),
        "statuses": {str(status): count for status, count in sorted(under.statuses.items())},
        "failures": dict(before.failures + under.failures + after.failures),
        "lowest_cosine": round(min(phase.lowest_cosine for phase in (before, under, after)), 6),
        "alone_p50_s": round(float(np.median(before.served_s)), 3),
        "served_p50_s": round(float(np.median(served_s)), 3),
        "served_max_s": round(max(served_s), 3),
        "queue_s": round(queued_s, 3),  # what a full queue takes
        "refused_p50_s": round(float(np.median(refused_s)), 4),
        "refused_max_s": round(max(refused_s), 3),
        "health_max_s": round(max(under.health_s), 3),
        "health": len(under.health_s),
        "texts_per_request": texts,
        "words_per_text": words,
        "max_queued_texts": max_queued_texts,
        "tracebacks": log.count("Traceback"),
        "seed": seed,
    }


def rate(outcome: Outcome, texts: int) -> float:
    """Return texts a second between the first answer and the last."""
    at_s = outcome.served_at_s
    return (len(at_s) - 1) * texts / (at_s[-1] - at_s[0]) if len(at_s) > 1 else 0.0


def is_right(result: dict[str, Any]) -> bool:
    """Say whether everybody was answered as the contract has it; no word of how fast."""
    return (
        not result["failures"]
        and result["lowest_cosine"] > SAME
        and set(result["statuses"]) <= {"200", "429", "503"}
        and result["health"] > 0
        and not result["tracebacks"]
    )


def is_bounded(result: dict[str, Any]) -> bool:
    """Say whether who is served waits for the queue, not longer, and the rest for nothing."""
    longest_s = 2 * (result["queue_s"] + result["alone_p50_s"])
    return bool(result["served_max_s"] <= longest_s and result["refused_p50_s"] <= 0.1)


def main(say: Callable[[str], None] = print) -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each phase")
    parser.add_argument("--times", type=float, default=10.0, help="of what the server can give")
    parser.add_argument("--texts", type=int, default=16, help="in a request")
    parser.add_argument("--words", type=int, default=60, help="in a text")
    parser.add_argument("--max-queued-texts", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the result there too")
    asked = parser.parse_args()
    result = run(
        seconds=asked.seconds,
        times=asked.times,
        texts=asked.texts,
        words=asked.words,
        max_queued_texts=asked.max_queued_texts,
        seed=asked.seed,
    )
    text = json.dumps(result, indent=2)
    say(text)
    if asked.json:
        asked.json.write_text(text + "\n")
    return 0 if is_right(result) and result["ratio"] >= 0.9 and is_bounded(result) else 1


if __name__ == "__main__":
    sys.exit(main())
