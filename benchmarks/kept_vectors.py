"""What it costs and saves to keep vectors on disk: two servers in turns, one with and one without.

    python benchmarks/kept_vectors.py [--rounds 15] [--json OUT]

Both run MiniLM. In each round both get the same new texts, in turns; then the one that keeps
vectors gets them again. Medians of all rounds. What a miss costs is the processor time of server
and workers with new texts, what is written later included, beside the other server's: it can be
told also on a machine that does something else. The file is in the page cache.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine
import psutil
from servers import Program, Running

from emberd.bench.client import Connection
from emberd.bench.texts import Texts
from emberd.cache.commands import look

QUERIES, QUERY_WORDS = 40, 8  # in a round, one after the other
PASSAGES, PASSAGE_WORDS = 64, 100  # in a round, in one request
SETTLE_S = 1.5  # until what a round gave is written
Seconds = list[float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="OUT")
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            program(folder / "without", "0").run() as without,
            program(folder / "keeping", "1GiB").run() as keeping,
        ):
            found = measure(without, keeping, wanted.rounds)
        kept = look(folder / "keeping" / "cache" / "vectors.db")
    found["bytes_per_vector"] = kept.size_bytes / kept.entries
    found["vectors"] = kept.entries
    if wanted.json:
        wanted.json.write_text(json.dumps({"machine": machine.facts(), "found": found}, indent=1))
    for name, value in found.items():
        print(f"{name:28} {value:10.3f}")


def program(home: Path, most: str) -> Program:
    """Return a server with a home of its own."""
    command = [sys.executable, "-m", "emberd", "serve", "--port"]
    return Program(
        name=home.name,
        folder=home,
        command=lambda port: [*command, str(port)],
        environment={"EMBERD_HOME": str(home), "EMBERD_CACHE_VECTORS": most},
    )


def measure(without: Running, keeping: Running, rounds: int) -> dict[str, float]:
    """Return medians in milliseconds and texts a second, and ratios of keeping and not keeping."""
    texts = Texts()
    found: dict[str, float] = {}
    with Connection(without.server) as plain, Connection(keeping.server) as kept:
        for name, count, words, at_once in (
            ("query", QUERIES, QUERY_WORDS, 1),
            ("passages", PASSAGES, PASSAGE_WORDS, PASSAGES),
        ):
            new: list[Seconds] = [[], []]
            again: Seconds = []
            used: list[Seconds] = [[], []]
            for number in range(-2, rounds):  # the first ones warm up
                asked = texts.take(count, words)
                batches = [asked[at : at + at_once] for at in range(0, count, at_once)]
                before = [processor_s(each.pid) for each in (without, keeping)]
                spent = _in_turns((plain, kept), batches, number)
                time.sleep(SETTLE_S)
                after = [processor_s(each.pid) for each in (without, keeping)]
                found_s = [ask(kept, batch) for batch in batches]
                if number < 0:
                    continue
                again += found_s
                for which in (0, 1):
                    new[which] += spent[which]
                    used[which].append(after[which] - before[which])
            found |= {
                f"{name}_without_ms": statistics.median(new[0]) * 1000,
                f"{name}_new_ms": statistics.median(new[1]) * 1000,
                f"{name}_found_ms": statistics.median(again) * 1000,
                f"{name}_cost_of_a_miss": sum(used[1]) / sum(used[0]) - 1,
                f"{name}_found_texts_per_s": at_once / statistics.median(again),
            }
    return found


def processor_s(pid: int) -> float:
    """Return the processor time that a server and its workers have used."""
    server = psutil.Process(pid)
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _in_turns(
    pair: tuple[Connection, Connection], batches: Sequence[Sequence[str]], number: int
) -> list[Seconds]:
    """Ask both for each batch, one first and then the other first."""
    spent: list[Seconds] = [[], []]
    for place, batch in enumerate(batches):
        order = (0, 1) if (place + number) % 2 else (1, 0)
        for which in order:
            spent[which].append(ask(pair[which], batch))
    return spent


def ask(connection: Connection, texts: Sequence[str]) -> float:
    """Return how long an answer takes, in seconds; the server may answer from its file."""
    server = connection.server
    request = server.post(server.path, server.body(texts))
    began_s = time.perf_counter()
    connection.ask(request)
    return time.perf_counter() - began_s


if __name__ == "__main__":
    main()
