"""The part of docs/performance.md on many cores and on GPUs: tables, plots, and how they were made.

Each committed `results/scaling-*.json` gives a table with a column for each number of cores or
GPUs, and a plot.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from profiles import SECTION
from scaling import CLIENTS, EMBERD, ENGINE

RUNS = "scaling-*.json"
NOT_YET = "No run has been committed yet: `scripts/bench --cores 2,4,8,16 --json OUT` makes one."
MOST_FUNCTIONS = 5  # of a thread, that a profile shows
SHARED = {
    "nothing": "clients on other cores",
    "cores": "clients on the other hyperthreads of the same cores",
    "processors": "clients on the same cores",
}


class Column:
    """The medians of one number of cores or GPUs."""

    def __init__(self, name: str, of: Mapping[str, Any]) -> None:
        self.name = name
        self.facts = of
        self._numbers = of["numbers"]

    def of(self, who: str, number: str) -> float | None:
        """Return a median; None if it was not measured."""
        found = self._numbers.get(who, {}).get(number)
        return None if found is None else float(found["median"])

    def rounds(self, who: str, number: str) -> list[float]:
        """Return all rounds of a number."""
        found: list[float] = self._numbers.get(who, {}).get(number, {}).get("rounds", [])
        return found

    @property
    def most_rounds(self) -> int:
        """How many rounds this column has."""
        return max(
            (
                len(each["rounds"])
                for numbers in self._numbers.values()
                for each in numbers.values()
            ),
            default=0,
        )

    def peers(self) -> list[str]:
        """Return who took part beside emberd."""
        return [who for who in self._numbers if who not in (EMBERD, ENGINE, CLIENTS)]


Value = Callable[[Column], float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table: what it says of a column, how that is written, and the goal, if any."""

    label: str
    value: Value
    write: str
    at_least: float | None = None
    at_most: float | None = None

    def cell(self, column: Column) -> str:
        """Return the value, bold if it misses the goal."""
        value = self.value(column)
        if value is None:
            return ""
        text = self.write.format(value)
        low = self.at_least is not None and value < self.at_least
        high = self.at_most is not None and value > self.at_most
        return f"**{text}**" if low or high else text

    @property
    def goal(self) -> str:
        """The goal in words; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.write.format(self.at_least)}"
        return "" if self.at_most is None else f"≤ {self.write.format(self.at_most)}"


def own(number: str) -> Value:
    """Return a number of emberd's."""
    return lambda column: column.of(EMBERD, number)


def ratio(one: Value, other: Value, scale: float = 1.0) -> Value:
    """Return one value divided by another."""

    def found(column: Column) -> float | None:
        a, b = one(column), other(column)
        return scale * a / b if a is not None and b else None

    return found


def engine(number: str) -> Value:
    """Return a number of emberd's engine in process."""
    return lambda column: column.of(ENGINE, number)


def in_process(peer: str, number: str) -> Value:
    """Return a number of a peer's."""
    return lambda column: column.of(peer, number)


def times(number: str, first: Column) -> Value:
    """Return how many times a number of the first column this is."""

    def found(column: Column) -> float | None:
        return None if column is first else ratio(own(number), lambda _: own(number)(first))(column)

    return found


def least(one: Value, other: Value) -> Value:
    """Return the smaller of two values."""

    def found(column: Column) -> float | None:
        values = [value for value in (one(column), other(column)) if value is not None]
        return min(values, default=None)

    return found


def busy(column: Column) -> float | None:
    """Return how many cores server and workers used in bulk."""
    server, workers = (column.of(EMBERD, f"bulk_{who}_cores") for who in ("server", "workers"))
    return None if server is None or workers is None else server + workers


def added(column: Column) -> float | None:
    """Return what server and HTTP add to a query."""
    mine, alone = column.of(EMBERD, "query_p50_ms"), column.of(ENGINE, "query_p50_ms")
    return None if mine is None or alone is None else mine - alone


def in_waits(column: Column) -> float | None:
    """Return the p90 of long texts, in units of clients divided by throughput (64 of them)."""
    p90_ms, speed = (column.of(EMBERD, f"lengths_{n}") for n in ("long_p90_ms", "texts_per_s"))
    return None if p90_ms is None or speed is None else p90_ms / 1000 * speed / 64


BULK, LENGTHS = own("bulk_tokens_per_s"), own("lengths_tokens_per_s")
EITHER = (
    Line("passages over HTTP, 8 clients × 100 texts", own("bulk_texts_per_s"), "{:,.0f} texts/s"),
    Line("the same in tokens", BULK, "{:,.0f} /s"),
    Line("64 clients, a passage each", own("clients_texts_per_s"), "{:,.0f} texts/s"),
)
FIRST_S = ratio(own("first_ms"), lambda _: 1000.0)
ON_CORES = (
    *EITHER,
    Line("its share of bulk, in tokens", ratio(own("clients_tokens_per_s"), BULK, 100),
         "{:.0f} %", at_least=70),
    Line("64 clients, 3 to 400 words each: share of bulk", ratio(LENGTHS, BULK, 100),
         "{:.0f} %", at_least=85),
    Line("its texts under 20 words, p90", own("lengths_short_p90_ms"), "{:.0f} ms", at_most=250),
    Line("its texts over 250 words, p90, as times clients / throughput", in_waits, "{:.1f} ×",
         at_most=3.5),
    Line("one short query, p50", own("query_p50_ms"), "{:.1f} ms"),
    Line("what server and HTTP add to the engine", added, "{:.2f} ms", at_most=0.8),
    Line("first answer after a start", FIRST_S, "{:.2f} s", at_most=0.45),
    Line("engine in process, best of all streams and batches", engine("best_tokens_per_s"),
         "{:,.0f} tokens/s"),
    Line("passages over HTTP, share of that", ratio(BULK, engine("best_tokens_per_s"), 100),
         "{:.0f} %", at_least=80),
    Line("cores used by server and worker in bulk", busy, "{:.1f}"),
    Line("and by the clients", own("bulk_client_cores"), "{:.2f}"),
    Line("what the clients can do alone, bulk", lambda c: c.of(CLIENTS, "bulk_texts_per_s"),
         "{:,.0f} texts/s"),
)  # fmt: skip
LIMIT = least(engine("best_tokens_per_s"), engine("tokenizer_tokens_per_s"))
ON_GPUS = (
    replace(EITHER[0], label="passages over HTTP, 8 clients × 100 texts for each GPU"),
    EITHER[1],
    Line("in the first ten seconds after the load", own("early_texts_per_s"), "{:,.0f} texts/s"),
    Line(EITHER[2].label, EITHER[2].value, EITHER[2].write, at_least=2500),
    Line("one short query, p50", own("query_p50_ms"), "{:.1f} ms"),
    Line("first answer after a start", FIRST_S, "{:.2f} s", at_most=1.5),
    Line("engine in process", engine("best_tokens_per_s"), "{:,.0f} tokens/s"),
    Line("tokenizer alone", engine("tokenizer_tokens_per_s"), "{:,.0f} tokens/s"),
    Line("passages over HTTP, share of the lesser", ratio(BULK, LIMIT, 100), "{:.0f} %",
         at_least=50),
    Line("cores used by server and worker in bulk", busy, "{:.1f}"),
    Line("and by the clients", own("bulk_client_cores"), "{:.2f}"),
    Line("what the clients can do alone, bulk", lambda c: c.of(CLIENTS, "bulk_texts_per_s"),
         "{:,.0f} texts/s"),
)  # fmt: skip
LEAST_OVER_PEER = {"sentence-transformers, bf16": 2, "sentence-transformers, f16": 3}


def table(columns: Sequence[Column]) -> str:
    """Return the table of one run."""
    lines = list(ON_GPUS if columns[0].facts["gpus"] else ON_CORES)
    alone = times("bulk_texts_per_s", columns[0])
    one = "one GPU" if columns[0].facts["gpus"] else columns[0].name
    lines.append(Line(f"times the passages of {one}", alone, "{:.2f} ×"))
    if columns[0].facts["gpus"]:
        linear = ratio(alone, lambda column: float(column.facts["gpus"]), 100)
        lines.append(Line("its share of as many times one", linear, "{:.0f} %", at_least=90))
    for peer in columns[-1].peers():
        theirs = in_process(peer, "bulk_texts_per_s")
        lines += [
            Line(f"{peer}, in process", theirs, "{:,.0f} texts/s"),
            Line(f"emberd over HTTP / {peer}", ratio(own("bulk_texts_per_s"), theirs), "{:.1f} ×",
                 at_least=LEAST_OVER_PEER.get(peer)),
        ]  # fmt: skip
    names = [column.name for column in columns]
    rows = [["", *names, "goal"], ["---", *["---:"] * (len(names) + 1)]]
    rows += [[line.label, *(line.cell(column) for column in columns), line.goal] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows if any(row[1:-1]))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the committed runs by their files' names, without `.json`."""
    return {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob(RUNS))}


def columns_of(results: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a run, the smallest first."""
    found = [Column(name, of) for name, of in results["columns"].items()]
    return sorted(found, key=lambda column: (column.facts["gpus"], column.facts["cores"]))


def section(runs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return everything about these runs."""
    parts = []
    for name, results in runs.items():
        columns = columns_of(results)
        if not columns:
            continue
        plots = "\n".join(
            f"![{plot['title']}](plots/{plot['file']})" for plot in plots_of(name, results)
        )
        facts = "\n".join(f"- {fact}" for fact in facts_of(results, columns))
        profiles = [profile_table(column) for column in columns if SECTION in column.facts]
        parts.append("\n\n".join([table(columns), plots, *profiles, facts]))
    return "\n\n".join(parts) or NOT_YET


def profile_table(column: Column) -> str:
    """Return where the time goes in bulk, by thread: see `profiles.profile`."""
    rows = [[f"in bulk with {column.name}", "cores", "its functions"], ["---", "---:", "---"]]
    for process, threads in column.facts[SECTION].items():
        for thread in threads:
            shares = [*thread["functions"].items()][:MOST_FUNCTIONS]
            functions = ", ".join(f"`{name}` {share:.0%}" for name, share in shares)
            rows.append([f"{process}: {thread['name']}", f"{thread['cores']:.2f}", functions])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def facts_of(results: Mapping[str, Any], columns: Sequence[Column]) -> list[str]:
    """Return how a run was made."""
    on, model, runs = results["machine"], results["model"], results["runs"]
    where = ", ".join(on["gpus"]) or f"{on['processors']} processors"
    places = "; ".join(
        f"{column.name}: on {of['cores']} processors of {of['physical_cores']} physical cores,"
        f" {SHARED[of['shares']]}, {column.most_rounds} round(s)"
        for column in columns
        for of in [column.facts]
    )
    versions = [*on["emberd_environment"].items()]
    versions += [pair for packages in results["versions"].values() for pair in packages.items()]
    cosines = "; ".join(
        f"{who} {check['cosine']['lowest']:.6f}" for who, check in results["check"].items()
    )
    facts = [
        f"{on['date']}, {on['processor']}, {where}, {on['threads_a_core']} thread(s) a core as the"
        f" system says, {on['system']}, Python {on['python']}; medians of the rounds.",
        f"The sizes of {model['sizes']}, random weights, compute {results['compute']}; passages of"
        f" {results['tokens_a_text']:.0f} tokens on average; answers in {results['answers']}.",
        f"{places}.",
        f"{', '.join(f'{package} {version}' for package, version in versions)}.",
        f"Lowest cosine to float32: {cosines}.",
    ]
    facts += [f"Missing: {who} ({why})." for who, why in results["missing"].items()]
    facts += [f"{who} failed: {why}" for who, why in results["failed"].items()]
    return facts + [f"`{command}`" for command in dict.fromkeys(run["command"] for run in runs)]


def plots_of(name: str, results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the plots of a run, for `peer_code/plots.py`: lines over cores, or bars for GPUs."""
    columns = columns_of(results)
    if not columns:
        return []
    who = [EMBERD, *columns[-1].peers()]
    title = "passages: texts/s (more is better)"
    if columns[0].facts["gpus"]:
        values = {
            f"{peer}, {column.name}": column.rounds(peer, "bulk_texts_per_s")
            for column in columns
            for peer in who
        }
        own = [name for name in values if name.startswith(f"{EMBERD},")]
        return [{"file": f"{name}.svg", "title": title, "values": _some(values), "own": own}]
    lines = {
        peer: [
            [column.facts["cores"], column.rounds(peer, "bulk_texts_per_s")]
            for column in columns
            if column.rounds(peer, "bulk_texts_per_s")
        ]
        for peer in who
    }
    file, x = f"{name}.svg", "cores"
    return [{"file": file, "title": title, "lines": _some(lines), "own": [EMBERD], "x": x}]


def _some(values: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: each for name, each in values.items() if each}
