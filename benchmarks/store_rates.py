"""How fast a large store of any kind is migrated, and whether memory grows with its rows.

    python benchmarks/store_rates.py blob 1000000
    python benchmarks/store_rates.py pgvector 100000 --out FILE

The store is made by the `Subject` in tests/migrate/kinds/KIND.py: random vectors of 384 dimensions,
texts of at most eight tokens. A server embeds them. Its rate with nothing else to do, asked just as
a migration asks it, is measured before and after `emberd migrate run`. Of that process, which is
measured from outside, memory is sampled five times a second: `resident`, which includes files that
are mapped, such as the index of SQLite's log, and `anonymous`, without them. `growth_percent` is by
how much a peak exceeds the most until 50,000 rows were embedded. Processor times, of the server
with its workers and of the command, tell more than rates where other programs run, too:
`share_of_alone` is what the server alone takes for a row, of what both take in a migration.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any, overload

import machine
import numpy as np
import psutil
import yaml

from emberd.client.clients import Client
from emberd.config.load import load_config
from emberd.migrate.embedding import BATCH, ServerEmbedder, Target, find_target, submit_to
from emberd.migrate.turns import in_turn
from emberd.stores.base import Key
from emberd.vectors import Matrix
from tests.migrate.kinds.base import Subject
from tests.serving import Server

DIMENSIONS = 384
BLOCK = 4096  # vectors that are drawn at once
FIRST = 50_000  # rows after which memory must not grow any more
ALONE = 20_000  # texts that show the server's own rate, at most
MOST_TOKENS = 8
SAMPLE_S = 0.2
WORDS = re.findall(
    "[a-z]+",
    """time year people way day man thing woman life child world school state family student group
    country problem hand part place case week company system program question work government
    number night point home water room mother area money story fact month lot right study book eye
    job word business issue side kind head house service friend father power hour game line end
    member law car city community name president team minute idea body information back parent face
    others level office door health person art war history party result change morning reason
    research girl guy moment air teacher force education""",
)[:100]

Row = tuple[Key, str, Matrix]


def text_of(number: int) -> str:
    """Return the text of a row: four common words, no two rows alike."""
    words = [WORDS[number // len(WORDS) ** place % len(WORDS)] for place in range(4)]
    return " ".join(words)


class Drawn(Sequence[Row]):
    """All rows of a store, none of them in memory for long."""

    def __init__(self, subject: Subject, rows: int) -> None:
        self._subject = subject
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(self._rows))]
        if not 0 <= at < self._rows:
            raise IndexError(at)
        return self._subject.key(at), text_of(at), vectors(at // BLOCK)[at % BLOCK]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, self._rows, BLOCK):
            block = vectors(start // BLOCK)
            for at in range(start, min(start + BLOCK, self._rows)):
                yield self._subject.key(at), text_of(at), block[at - start]


def vectors(block: int) -> Matrix:
    """Return the vectors of a block of rows, of length 1: `(BLOCK, DIMENSIONS)`."""
    drawn = np.random.default_rng(block).standard_normal((BLOCK, DIMENSIONS), np.float32)
    made: Matrix = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return made


@dataclass
class Watched:
    """A process: how much memory it had when, and how far it said that it was."""

    process: psutil.Popen
    resident: list[tuple[float, int]] = field(default_factory=list)
    anonymous: list[tuple[float, int]] = field(default_factory=list)
    processor_s: float = 0.0
    done: list[tuple[float, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def follow(self) -> str:
        """Watch it until its end; return what it printed."""
        reader = Thread(target=self._read)
        reader.start()
        while self.process.poll() is None:
            try:
                now_s, held = time.monotonic(), self.process.memory_info()
                self.processor_s = sum(self.process.cpu_times()[:2])
                self.resident.append((now_s, held.rss))
                self.anonymous.append((now_s, held.rss - held.shared))
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                break
            time.sleep(SAMPLE_S)
        reader.join()
        said: str = self.process.stdout.read().decode()
        if self.process.wait():
            sys.exit(f"the migration failed: {''.join(self.errors)}")
        return said

    def _read(self) -> None:
        for raw in self.process.stderr:
            line = raw.decode()
            try:
                progress = json.loads(line)["progress"]
            except (ValueError, KeyError, TypeError):
                self.errors.append(line)
                continue
            if progress["done"] is not None:
                self.done.append((time.monotonic(), progress["done"]))

    def memory(self, rows: int) -> dict[str, dict[str, float]]:
        """Return the peaks until so many rows were embedded and after that, in MB."""
        reached_s = next((at_s for at_s, done in self.done if done >= rows), 0.0)
        return {
            "resident": _growth(self.resident, reached_s),
            "anonymous": _growth(self.anonymous, reached_s),
        }


def _growth(sizes: Sequence[tuple[float, int]], reached_s: float) -> dict[str, float]:
    first = max(size for at_s, size in sizes if at_s <= reached_s)
    rest = max(size for at_s, size in sizes if at_s > reached_s)
    return {
        "first_mb": round(first / 1e6, 1),
        "peak_mb": round(rest / 1e6, 1),
        "growth_percent": round(100 * (rest / first - 1), 2),
    }


@dataclass
class Alone:
    """A server with nothing else to do: how fast it is, and what a row costs."""

    rows_per_s: float
    processor_s: float


def spent_s(process: psutil.Process) -> float:
    """Return the processor time that a server and its workers have taken."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def alone(server: Server, embedder: ServerEmbedder, target: Target, rows: int) -> Alone:
    """Measure a server that embeds texts, asked as by a migration."""
    texts = [text_of(at) for at in range(rows)]
    batches = (texts[at : at + BATCH] for at in range(0, rows, BATCH))
    process = psutil.Process(server.process.pid)
    began_s, spent_before_s = time.perf_counter(), spent_s(process)
    for _ in in_turn(batches, lambda batch: submit_to(embedder, batch, target)):
        pass
    took_s = time.perf_counter() - began_s
    return Alone(rows / took_s, (spent_s(process) - spent_before_s) / rows)


def require_short(server: Server, model: str) -> None:
    """Exit if a text may have more tokens than it should, by the model's own tokenizer."""
    counts = [server.embed(word, model=model)["usage"]["tokens"] for word in WORDS]
    most = 4 * (max(counts) - 2) + 2  # besides the two at its ends
    if most > MOST_TOKENS:
        sys.exit(f"{model} makes up to {most} tokens of a text of four words.")


def measure(
    kind: type[Subject], rows: int, model: str, folder: Path, *, indexed: bool
) -> dict[str, Any]:
    """Make a store, migrate it, and return what that took."""
    (folder / "engine").mkdir()
    with kind(folder / "engine") as subject:
        if not indexed:
            subject.indexed = False  # type: ignore[attr-defined]
        subject.create(Drawn(subject, rows))
        config = yaml.safe_dump({"default": model, "stores": {"store": subject.entry}})
        hub = load_config().homes.hub
        environ = {"HF_HUB_CACHE": str(hub)}
        with (
            Server(folder / "home", config=config, environ=environ) as server,
            Client(server.url) as client,
            ServerEmbedder(client) as embedder,
        ):
            require_short(server, model)
            loaded = load_config(environ={"EMBERD_HOME": str(folder / "home"), **environ})
            target = find_target(loaded, embedder, model)
            tried = min(rows, ALONE)
            before = alone(server, embedder, target, tried)
            process = psutil.Process(server.process.pid)
            began_s, spent_before_s = time.monotonic(), spent_s(process)
            watched = Watched(started(folder / "home", environ, model))
            outcome = json.loads(watched.follow())
            whole_s = time.monotonic() - began_s
            server_s = (spent_s(process) - spent_before_s) / rows
            after = alone(server, embedder, target, tried)
    rate, own = rows / whole_s, (before.rows_per_s + after.rows_per_s) / 2
    own_s, command_s = (before.processor_s + after.processor_s) / 2, watched.processor_s / rows
    return {
        "machine": machine.facts(),
        "kind": kind.name,
        "rows": rows,
        "indexed": indexed and hasattr(kind, "indexed"),
        "model": model,
        "alone_rows_per_s": [round(before.rows_per_s, 1), round(after.rows_per_s, 1)],
        "rows_per_s": round(rate, 1),
        "share_of_alone": round(rate / own, 4),
        "processor_us_per_row": {
            "server_alone": round(1e6 * own_s, 1),
            "server": round(1e6 * server_s, 1),
            "command": round(1e6 * command_s, 1),
            "share_of_alone": round(own_s / (server_s + command_s), 4),
        },
        "whole_s": round(whole_s, 1),
        "embedding_s": outcome["embed_s"],
        "locked_s": outcome["locked_s"],
        "index_s": outcome["index_s"],
        "lowest_cosine": outcome["lowest_cosine"],
        "memory": watched.memory(min(FIRST, rows // 2)),
    }


def started(home: Path, environ: dict[str, str], model: str) -> psutil.Popen:
    """Start the migration in a process of its own."""
    command = ["migrate", "run", "store", "--to", model, "--yes", "--json", "--progress"]
    return psutil.Popen(
        [sys.executable, "-m", "emberd", *command],
        env={**psutil.Process().environ(), "EMBERD_HOME": str(home), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", help="whose module in tests/migrate/kinds has the subject")
    parser.add_argument("rows", type=int)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--no-index", action="store_true", help="of pgvector: make none")
    parser.add_argument("--folder", type=Path, help="where to make the store")
    parser.add_argument("--out", type=Path, help="also write the result to this file")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="emberd-bench-", dir=asked.folder))
    try:
        module = import_module(f"tests.migrate.kinds.{asked.kind.replace('-', '_')}")
        found = measure(module.Subject, asked.rows, asked.model, folder, indexed=not asked.no_index)
        result = json.dumps(found, indent=1) + "\n"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(result)
    if asked.out:
        asked.out.write_text(result)


if __name__ == "__main__":
    main()
