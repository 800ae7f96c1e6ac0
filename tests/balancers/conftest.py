"""Two servers of one space, and a balancer in front of them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.balancers.balancing import Balancer
from tests.balancers.nodes import Node

Balance = Callable[[str, list[Node]], Balancer]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    """Two servers that serve the same model, loaded."""
    both = [Node(tmp_path / "one"), Node(tmp_path / "two")]
    yield both
    for each in both:
        each.stop()


@pytest.fixture
def balance(tmp_path: Path) -> Iterator[Balance]:
    """Start a balancer for nodes: `balance(kind, nodes)`; its pool's space is the first's.

    Those that have their model loaded come first, and serve this space.
    """
    with ExitStack() as running:

        def started(kind: str, nodes: list[Node]) -> Balancer:
            ports = [node.port for node in nodes]
            made = Balancer(kind, tmp_path / kind, ports, model="tiny", space=nodes[0].space)
            running.enter_context(made)
            loaded = [node for node in nodes if node.server.row("tiny")["state"] == "ready"]
            made.wait_for_checks(len(loaded))
            return made

        yield started
