"""The table of clients in docs/http-api.md: which library, at which version, gets through.

It is made of what ran: `scripts/client-table` writes it, `test_table.py` compares it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "http-api.md"
BEGIN, END = "<!-- clients: written by scripts/client-table -->", "<!-- end of clients -->"
HEADER = ("dialect", "client", "version", "result")


@dataclass(frozen=True, slots=True)
class Client:
    """A client library; every module of tests names the one it drives as `CLIENT`."""

    dialect: str
    name: str
    version: str


RESULTS = pytest.StashKey[dict[Client, bool]]()


def apart() -> dict[Client, str]:
    """Return the clients that `apart.py` drove, and how that ended."""
    noted = json.loads((HERE / "apart.json").read_text())
    return {Client(**row["client"]): row["result"] for row in noted}


def rows(results: Mapping[Client, bool]) -> list[str]:
    """Return the lines of the table."""
    ended = {client: "works" if good else "fails" for client, good in results.items()} | apart()
    return [
        line(client.dialect, client.name, client.version, result)
        for client, result in sorted(ended.items(), key=lambda row: str(row[0]))
    ]


def line(*cells: str) -> str:
    """Return one line of the table."""
    return f"| {' | '.join(cells)} |"


def committed() -> list[str]:
    """Return the lines of the table as the page has it, without its header."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    return table.strip().splitlines()[2:]


def write(results: Mapping[Client, bool]) -> None:
    """Put the table into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    table = [line(*HEADER), line(*("---" for _ in HEADER)), *rows(results)]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(table) + f"\n\n{END}{after}")
