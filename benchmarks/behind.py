"""Where emberd is not ahead: every number of the committed runs in which somebody else is better.

Written into docs/performance.md by report.py, so that it cannot be forgotten.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from architectures_report import lines_of
from scaling import EMBERD
from scaling_report import columns_of

LESS_IS_BETTER = ("ms", "s", "MiB", "ms a batch")
SCALING = (("passages, 8 clients", "bulk_texts_per_s", "texts/s"),
           ("one short query, p50", "query_p50_ms", "ms"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of emberd and of somebody else, in the same run."""

    where: str
    what: str
    unit: str
    own: float
    other: str
    theirs: float

    @property
    def times(self) -> float:
        """How many times better the other is; less than 1 if emberd is."""
        less = self.unit in LESS_IS_BETTER
        return self.own / self.theirs if less else self.theirs / self.own

    @property
    def row(self) -> list[str]:
        """The cells of its line."""
        own, theirs = (
            f"{value:,.0f} {self.unit}" if value >= 100 else f"{value:.3g} {self.unit}"
            for value in (self.own, self.theirs)
        )
        return [self.where, self.what, own, self.other, theirs, f"{self.times:.2f} ×"]


def of_bench(results: Mapping[str, Any], rows: Sequence[Any]) -> Iterator[Figure]:
    """Yield emberd's numbers beside every peer's; `rows` are those of report.py."""
    where = f"{results['machine']['processor']}, {results['machine']['cores']} cores"
    peers = results["peers"]
    for row in rows:
        mine = peers[EMBERD]["numbers"].get(row.number)
        for name, peer in peers.items():
            theirs = peer["numbers"].get(row.number)
            if mine and theirs and not name.startswith(EMBERD):
                values = (mine["median"] * row.scale, theirs["median"] * row.scale)
                yield Figure(where, row.label, row.unit, values[0], name, values[1])


def of_architectures(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield the speed of emberd's fastest arithmetic beside torch's in each."""
    on = results["machine"]
    where = f"{on['processor']}, {on['processors']} processors"
    own = f"emberd, {results['compute']}"
    for line in lines_of(results):
        for other in line.numbers["tokens_per_s"]:
            mine, theirs = line.speed(own), line.speed(other)
            if mine and theirs and not other.startswith("emberd"):
                what = f"{line.name}, {line.kind}"
                yield Figure(where, what, "tokens/s", mine, other, theirs)


def of_scaling(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield emberd's numbers over HTTP beside every peer's in process."""
    on = results["machine"]
    for column in columns_of(results):
        machine = on["gpus"][0] if column.facts["gpus"] else on["processor"]
        where = f"{machine}, {column.name}, {results['model']['sizes']}"
        for what, number, unit in SCALING:
            mine = column.of(EMBERD, number)
            for peer in column.peers():
                theirs = column.of(peer, number)
                if mine is not None and theirs is not None:
                    yield Figure(where, what, unit, mine, f"{peer}, in process", theirs)


def of_gpu(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Yield the encoder's times beside those of others, from token ids to vectors."""
    for shape, of in results["ms"].items():
        for name, each in of.items():
            if not name.startswith(EMBERD):
                mine, theirs = of[EMBERD]["median"], each["median"]
                gpu = results["facts"]["gpu"]
                yield Figure(gpu, f"the model alone, {shape}", "ms a batch", mine, name, theirs)


def table(figures: Sequence[Figure]) -> str:
    """Return those in which emberd is not ahead, and of how many."""
    behind = [each for each in figures if each.times > 1]
    head = ["where", "what", "emberd", "ahead of it", "", "by"]
    rows = [head, ["---", "---", "---:", "---", "---:", "---:"], *(each.row for each in behind)]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return (
        f"Of {len(figures)} figures in the committed runs that emberd and somebody else both have,"
        f" {len(behind)} are better elsewhere. What runs in process has no server to go through,"
        f" which emberd does.\n\n{lines}"
    )
