"""Kill a model's worker again and again under load; no client may notice, and it is back at once.

    python -m tests.faults.kills --kills 200 --seed 7 --json kills.json

Clients ask side by side, each one request after another; every vector is compared. Kills are
SIGKILL, uniform over the time that a worker lives, its start included; one in four hits a worker
that starts for requests which no death has struck before. Recovery is the time from a kill to the
first answer of the worker that came after. Prints one JSON object; exit code 1 when a request
failed, or 5 % of the recoveries took longer than a second. Real MiniLM embeds.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil

from tests.load import Known
from tests.serving import Server, wait_for

MODEL = "minilm"
LIFE_S = 3.0  # a worker is killed within this time
START_S = 0.6  # about what a start takes
RECOVERY_S = 1.0  # 95 % are as quick
YOUNG_S = 0.15  # no worker is ready so early, so no request is with it
LOOK_S = 0.03  # looking for a new process takes time that the start would have used


@dataclass
class Kill:
    """One death: when, in which part of the worker's life, and when the next process was there."""

    at_s: float
    starting: bool
    next_s: float = 0.0


@dataclass
class Kills:
    """A server under load. `asked` has since when each client waits; `answered_s` when it was."""

    server: Server
    known: Known
    stop: threading.Event = field(default_factory=threading.Event)
    asked: dict[int, float] = field(default_factory=dict)
    answered_s: list[float] = field(default_factory=list)
    vectors: int = 0
    failures: list[str] = field(default_factory=list)
    deaths: list[Kill] = field(default_factory=list)

    def client(self, number: int, seed: int) -> None:
        """Ask until told to stop."""
        chance = random.Random(seed)  # noqa: S311 - for repeating, not for secrets
        with httpx2.Client(base_url=self.server.url, timeout=150, trust_env=False) as http:
            while not self.stop.is_set():
                places = self.known.some(chance, chance.choice((1, 1, 1, 2, 5, 40)))
                self.asked[number] = time.monotonic()
                try:
                    answer = self.known.ask(http, MODEL, places)
                    self.answered_s.append(time.monotonic())
                    self.known.check(answer, MODEL, places)
                    self.vectors += len(places)
                except Exception as error:  # noqa: BLE001 - no thread may end unseen
                    self.failures.append(f"{type(error).__name__}: {str(error)[:200]}")
                del self.asked[number]

    def kill(self, count: int, seed: int) -> None:
        """Kill so many workers."""
        chance = random.Random(seed)  # noqa: S311
        worker, spawned_s = self._worker(other_than=0)
        while len(self.deaths) < count and not self.failures:
            if chance.random() < 0.25:
                self._wait_for_the_struck()
                self.server.http.post("/unload").raise_for_status()
                worker, spawned_s = self._worker(other_than=worker.pid)
                time.sleep(chance.uniform(0, START_S))
            else:
                time.sleep(chance.uniform(0, LIFE_S))
                if not self._may_be_killed_while_young(spawned_s):
                    self._wait_for_the_struck()
            answered = any(at_s > spawned_s for at_s in self.answered_s[-1:])
            worker.kill()
            death = Kill(time.monotonic(), starting=not answered)
            self.deaths.append(death)
            worker, spawned_s = self._worker(other_than=worker.pid)
            death.next_s = spawned_s

    def _worker(self, *, other_than: int) -> tuple[psutil.Process, float]:
        """Wait for the next process; return it, and since when it is there."""

        def look() -> psutil.Process | None:
            found = next((w for w in self.server.workers() if w.pid != other_than), None)
            if not found:
                time.sleep(LOOK_S)
            return found

        return wait_for(look), time.monotonic()

    def _may_be_killed_while_young(self, spawned_s: float) -> bool:
        """Whether no request is with the worker; but not twice in a row: that is a crash loop."""
        again = len(self.deaths) > 1 and self.deaths[-1].starting
        return not again and time.monotonic() - spawned_s < YOUNG_S

    def _wait_for_the_struck(self) -> None:
        """Wait until who was there at the last death is answered.

        A request whose worker dies twice, each time before any of its texts is answered, looks
        like the one that kills it, and fails by design.
        """
        struck_s = self.deaths[-1].at_s if self.deaths else 0.0
        wait_for(lambda: not any(s <= struck_s for s in list(self.asked.values())), within_s=120)

    def recoveries_s(self) -> list[float]:
        """Return how long it took, for those deaths that were followed by an answer."""
        answered_s = np.sort(self.answered_s)
        found = []
        for death, following in zip(self.deaths, [*self.deaths[1:], None], strict=True):
            first = np.searchsorted(answered_s, death.next_s)
            if first < len(answered_s) and (not following or answered_s[first] < following.at_s):
                found.append(float(answered_s[first]) - death.at_s)
        return found


def run(kills: int, seed: int, *, clients: int = 8) -> dict[str, Any]:
    """Do it all and return what is to be reported."""
    with tempfile.TemporaryDirectory(prefix="emberd-kills-") as folder:
        with Server(Path(folder) / "home") as server:
            subject = Kills(server, Known(server, [MODEL], seed))
            threads = [
                threading.Thread(target=subject.client, args=(number, seed + number))
                for number in range(clients)
            ]
            began_s = time.monotonic()
            for thread in threads:
                thread.start()
            try:
                subject.kill(kills, seed - 1)
                last = subject.deaths[-1]
                wait_for(lambda: subject.failures or subject.answered_s[-1] > last.next_s)
            finally:
                subject.stop.set()
                for thread in threads:
                    thread.join()
            spent_s = time.monotonic() - began_s
        noted = re.findall(r"died with (\d+) requests, (\d+) of them struck", server.log())
    recoveries_s = subject.recoveries_s()
    p50_s, p95_s = np.percentile(recoveries_s, (50, 95))
    return {
        "seconds": round(spent_s),
        "kills": len(subject.deaths),
        "while_starting": sum(death.starting for death in subject.deaths),
        "requests": len(subject.answered_s),
        "vectors": subject.vectors,
        "failures": subject.failures,
        "in_flight": sum(int(in_flight) for in_flight, _ in noted),
        "strikes": sum(int(strikes) for _, strikes in noted),
        "recoveries": len(recoveries_s),
        "recovery_p50_s": round(float(p50_s), 3),
        "recovery_p95_s": round(float(p95_s), 3),
        "recovery_max_s": round(max(recoveries_s), 3),
        "clients": clients,
        "seed": seed,
    }


def main(say: Callable[[str], None] = print) -> int:
    """Run from a command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--json", type=Path, help="write the result there too")
    asked = parser.parse_args()
    result = run(asked.kills, asked.seed, clients=asked.clients)
    text = json.dumps(result, indent=2)
    say(text)
    if asked.json:
        asked.json.write_text(text + "\n")
    return 1 if result["failures"] or result["recovery_p95_s"] > RECOVERY_S else 0


if __name__ == "__main__":
    sys.exit(main())
