"""What is measured with so many cores, or so many GPUs: a column of the results of `scaling.py`."""

import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import made
import turns
from made import Requests
from placement import Placement, running_on
from servers import Program, Running

import load
from emberd.bench import measure
from emberd.bench.measure import Numbers
from emberd.bench.texts import Texts

HERE = Path(__file__).parent
BULK, CLIENTS, QUERY, LENGTHS = "bulk", "clients", "query", "lengths"
HTTP = (BULK, CLIENTS, QUERY, LENGTHS)
MOST_CLIENT_PROCESSES = 4
SETTLE_S = 0.5
BATCHES = (1, 8, 32, 128)  # texts, for peers: the fastest is used
GPU_BATCHES = (64, 256, 512)
FEW, AT_ONCE = 100, 400  # texts that a peer gets at once: for choosing a batch size, on a CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """So many cores, or GPUs together with all cores.

    `emberd` and `engine` say what the environment of these processes has in addition; `home` is
    emberd's.
    """

    name: str
    placement: Placement
    home: Path
    requests: Requests
    seconds: float
    warm_s: float
    gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def client_processes(self) -> int:
        """How many processes of clients there are."""
        if self.placement.shares == "processors":
            return max(1, min(2, len(self.placement.clients) // 4))
        return min(MOST_CLIENT_PROCESSES, len(self.placement.clients))

    @property
    def bulk(self) -> load.Load:
        """The clients in bulk: as many for each GPU as for all cores."""
        bulk = self.requests.bulk
        return replace(bulk, clients=bulk.clients * max(1, self.gpus))

    @property
    def devices(self) -> dict[str, str]:
        """The environment that shows a process this column's GPUs only."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, range(self.gpus)))}

    @property
    def own(self) -> dict[str, str]:
        """The environment of emberd's processes."""
        return {**self.environment, **self.devices, "EMBERD_HOME": str(self.home)}


@contextmanager
def serving(column: Column) -> Iterator[Running]:
    """Run emberd on the column's processors."""
    program = Program(
        name="emberd",
        folder=column.home,
        command=lambda port: [
            sys.executable, "-m", "emberd.cli.main", "serve", "--port", str(port)
        ],
        environment=column.own,
    )  # fmt: skip
    with ExitStack() as stack:
        with running_on(column.placement.server):
            running = stack.enter_context(program.run())
        yield running


def over_http(column: Column, sections: Sequence[str], queries: Texts) -> Numbers:
    """Measure emberd over HTTP, freshly started."""
    requests, numbers = column.requests, Numbers()

    def under(each: load.Load, seconds: float) -> Numbers:
        servers = [running.server] * column.client_processes
        found = load.run(
            each, servers, seconds=seconds, clients_on=column.placement.clients, pid=running.pid
        )
        time.sleep(SETTLE_S)
        return found

    with serving(column) as running:
        time.sleep(SETTLE_S)
        numbers["first_ms"] = measure.first_ms(running.server, queries)
        early = under(replace(column.bulk, drain=False), column.warm_s)
        numbers["early_texts_per_s"] = early["texts_per_s"]
        for name, each in (
            (BULK, column.bulk), (CLIENTS, requests.clients), (LENGTHS, requests.lengths)
        ):  # fmt: skip
            if name in sections:
                found = under(each, column.seconds)
                numbers |= {f"{name}_{key}": value for key, value in found.items()}
        if QUERY in sections:
            with running_on(column.placement.clients):
                found = measure.one_client(
                    running.server, queries, count=len(requests.queries), seconds=column.seconds
                )
            numbers |= {name.replace("short", QUERY): value for name, value in found.items()}
        numbers["worked_mib"] = measure.tree_mib(running.pid)
    return numbers


def ceiling(column: Column, answer_bytes: Mapping[str, int]) -> Numbers:
    """Measure the clients against servers that do nothing, with answers of the real size."""
    numbers = Numbers()
    for name, each in ((BULK, column.bulk), (CLIENTS, column.requests.clients)):
        with load.null_servers(
            column.client_processes, answer_bytes[name], column.placement.server
        ) as null:
            found = load.run(
                each, null, seconds=min(1.0, column.seconds), clients_on=column.placement.clients
            )
        numbers[f"{name}_texts_per_s"] = found["texts_per_s"]
    return numbers


@contextmanager
def _program(
    column: Column, command: Sequence[str], more: Mapping[str, str]
) -> Iterator[turns.Pipe]:
    """Run a program that reads commands, on the column's processors."""
    with ExitStack() as stack:
        with running_on(column.placement.server):
            pipe = stack.enter_context(turns.piped(command, more))
        yield pipe


def engine(column: Column) -> Numbers:
    """Measure emberd's engine in a process without a server: one stream, and one for each core.

    The numbers of batches are named by streams and tokens. On a GPU, batches overlap instead.
    """
    requests, numbers = column.requests, Numbers()
    cores = len(column.placement.server)
    tries: dict[int, tuple[int, ...]] = {1: (512, 8192)}
    if cores > 1:
        tries[cores] = (512, 2048)
    if column.gpus:
        tries = {1: (8192, 32768, 131072)}
    for streams, sizes in tries.items():
        program = [sys.executable, str(HERE / "engine.py")]
        command = [*program, str(column.home), made.NAME, str(streams)]
        with _program(column, command, column.own) as pipe:
            for tokens in sizes:
                found = pipe.ask(
                    do="encode", texts=requests.mixed, tokens=tokens, seconds=column.seconds / 2
                )
                numbers[f"streams_{streams}_batch_{tokens}_tokens_per_s"] = found["tokens_per_s"]
            if streams == 1:
                spent_s = pipe.ask(do="query", texts=requests.queries)["spent_s"]
                numbers["query_p50_ms"] = statistics.median(spent_s) * 1000
                found = pipe.ask(do="tokenize", texts=requests.mixed, seconds=column.seconds / 4)
                numbers["tokenizer_tokens_per_s"] = found["tokens_per_s"]
    speeds = [value for name, value in numbers.items() if name.startswith("streams_")]
    return numbers | {"best_tokens_per_s": max(speeds)}


@dataclass(slots=True, kw_only=True)
class InProcess:
    """A peer without a server: reads texts, answers how long it took."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    batch: dict[str, int] = field(default_factory=dict)  # the fastest, for each column of cores

    @staticmethod
    def _place(column: Column) -> str:
        return "GPU" if column.gpus else column.name  # the same batch on each of them

    def run(self, column: Column) -> Numbers:
        """Measure passages and queries from text to vector."""
        requests, tokens = column.requests, column.requests.tokens_per_text()
        with self.started(column) as pipe:
            batch = self.batch.get(self._place(column)) or self._fastest(column, pipe)
            self.batch[self._place(column)] = batch
            # For each GPU, twice as many as one of them alone gets: see `peer_code`.
            at_once = len(requests.mixed) * (2 * column.gpus if column.gpus > 1 else 1)
            if not column.gpus:
                at_once = AT_ONCE
            per_s = self._texts_per_s(pipe, requests.mixed, batch, column.seconds, at_once)
            for query in requests.queries[:5]:
                pipe.ask(texts=[query], batch=1)
            spent_s = [pipe.ask(texts=[query], batch=1)["spent_s"] for query in requests.queries]
        return {
            "bulk_texts_per_s": per_s,
            "bulk_tokens_per_s": per_s * tokens,
            "bulk_batch": float(batch),
            "query_p50_ms": statistics.median(spent_s) * 1000,
        }

    @contextmanager
    def started(self, column: Column) -> Iterator[turns.Pipe]:
        """Run the program on the column's processors and GPUs."""
        threads = str(len(column.placement.server))
        more = {"BENCH_THREADS": threads, "OMP_NUM_THREADS": threads, **column.devices}
        more["BENCH_GPUS"] = str(column.gpus)
        with _program(column, self.command, {**self.environment, **more}) as pipe:
            yield pipe

    def _fastest(self, column: Column, pipe: turns.Pipe) -> int:
        sizes = GPU_BATCHES if column.gpus else BATCHES
        some, seconds = column.requests.mixed, column.seconds / 4
        speeds = {size: self._texts_per_s(pipe, some, size, seconds, FEW) for size in sizes}
        return max(speeds, key=speeds.__getitem__)

    def _texts_per_s(
        self, pipe: turns.Pipe, texts: Sequence[str], batch: int, seconds: float, at_once: int
    ) -> float:
        """Embed so many texts at once, which libraries sort by length, again and again."""
        size = max(batch, at_once)
        of_several = size > len(texts)  # processes: each is to be warm
        texts = [*texts] * -(-size // len(texts))
        groups = [texts[at : at + size] for at in range(0, len(texts), size)]
        pipe.ask(texts=groups[0] if of_several else groups[0][:batch], batch=batch)
        done, spent_s, turn = 0, 0.0, 0
        while spent_s < seconds:
            group = groups[turn % len(groups)]
            spent_s += pipe.ask(texts=group, batch=batch)["spent_s"]
            done, turn = done + len(group), turn + 1
        return done / spent_s
