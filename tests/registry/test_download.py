"""Downloading from a Hub: what is fetched, how it is told, and what goes wrong."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd.registry.local import find_local
from emberd.registry.spec import Source
from tests.hub import COMMIT, Answer, Fault, Hub
from tests.registry import model_folder
from tests.registry.fetching import Fetcher

MINE = Source(hf="me/mine")
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
REPOSITORY = {
    **model_folder.FILES,
    "model.safetensors": WEIGHTS,
    "onnx/model.onnx": b"not ours",
    "pytorch_model.bin": b"a pickle",
}
WANTED = ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]
TOTAL = sum(len(REPOSITORY[name]) for name in WANTED)
SHARDED = {
    "config.json": b"{}",
    "tokenizer.json": b"[]",
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors",
                        "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
}  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, Fetcher]]:
    repositories = {"me/mine": REPOSITORY, "me/sharded": SHARDED, "me/pickled": {"a.bin": b""}}
    home = tmp_path_factory.mktemp("home")
    with Hub(repositories) as hub, Fetcher(home, hub.url) as fetcher:
        yield hub, fetcher


@pytest.fixture
def hub(both: tuple[Hub, Fetcher]) -> Hub:
    """A Hub that answers as it should and has not been asked anything."""
    hub, _ = both
    hub.answer_instead = no_fault
    hub.requests.clear()
    return hub


@pytest.fixture
def fetcher(both: tuple[Hub, Fetcher]) -> Fetcher:
    """A process that asks this Hub."""
    return both[1]


def no_fault(_method: str, _path: str) -> None:
    return None


def portal(_method: str, _path: str) -> Answer:
    """The page of a network that wants a password first."""
    return Answer(200, b"<html>Please log in</html>")


def refusing(status: int, where: str, **headers: str) -> Fault:
    """Answer with `status` wherever the path has `where` in it."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _method, path: Answer(status, headers=named) if where in path else None


def test_the_files_that_are_wanted_are_fetched_and_no_others(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    found = fetcher.fetch(tmp_path, MINE)

    assert (found.error, found.source, found.downloaded) == ("", "hf:me/mine", True)
    assert hub.downloaded() == WANTED
    folder = Path(found.folder)
    assert {name: (folder / name).read_bytes() for name in WANTED} == {
        name: REPOSITORY[name] for name in WANTED
    }


def test_what_was_downloaded_is_found_without_the_hub(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    found = fetcher.fetch(tmp_path, MINE)
    asked = list(hub.requests)

    again = fetcher.fetch(tmp_path, MINE)

    assert find_local(MINE, tmp_path) == Path(found.folder)
    assert (again.folder, again.downloaded, again.reports) == (found.folder, False, [])
    assert hub.requests == asked


def test_progress_rises_to_the_size_of_all_that_is_wanted(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    reports = fetcher.fetch(tmp_path, MINE).reports

    assert reports == sorted(reports)
    assert {total for _, total in reports} == {TOTAL}
    assert reports[-1] == [TOTAL, TOTAL]


def test_a_revision_is_pinned(tmp_path: Path, hub: Hub, fetcher: Fetcher) -> None:
    pinned = Source(hf="me/mine", revision="v1")

    found = fetcher.fetch(tmp_path, pinned)

    assert found.source == "hf:me/mine@v1"
    assert find_local(pinned, tmp_path) == Path(found.folder)
    assert find_local(MINE, tmp_path) is None


def test_a_commit_is_a_revision(tmp_path: Path, hub: Hub, fetcher: Fetcher) -> None:
    pinned = Source(hf="me/mine", revision=COMMIT)

    found = fetcher.fetch(tmp_path, pinned)

    assert find_local(pinned, tmp_path) == Path(found.folder)


def test_all_shards_are_fetched(tmp_path: Path, hub: Hub, fetcher: Fetcher) -> None:
    sharded = Source(hf="me/sharded")

    fetcher.fetch(tmp_path, sharded)

    assert hub.downloaded() == sorted(SHARDED)
    assert find_local(sharded, tmp_path)


def test_a_source_that_the_hub_does_not_have_falls_to_the_next(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    found = fetcher.fetch(tmp_path, Source(hf="me/gone"), MINE)

    assert (found.source, found.downloaded) == ("hf:me/mine", True)


def test_the_source_that_was_used_before_is_downloaded_first(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    sharded = Source(hf="me/sharded")

    found = fetcher.fetch(tmp_path, MINE, sharded, first="hf:me/sharded")

    assert found.source == "hf:me/sharded"


def test_weights_that_are_there_are_not_fetched_again(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    hub.answer_instead = refusing(403, "/tokenizer.json")
    assert fetcher.fetch(tmp_path, MINE).error
    assert find_local(MINE, tmp_path) is None  # half a model is none
    hub.answer_instead = no_fault
    hub.requests.clear()

    found = fetcher.fetch(tmp_path, MINE)

    assert "model.safetensors" not in hub.downloaded()
    assert found.reports[-1] == [TOTAL, TOTAL]
    assert find_local(MINE, tmp_path)


def test_weights_with_another_hash_than_stated_are_refused_and_removed(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    def damaged(_method: str, path: str) -> Answer | None:
        is_weights = "/resolve/" in path and path.endswith("/model.safetensors")
        return Answer(200, WEIGHTS[:-1] + b"!") if is_weights else None

    hub.answer_instead = damaged

    assert "another hash" in fetcher.fetch(tmp_path, MINE).error

    hub.answer_instead = no_fault
    assert not fetcher.fetch(tmp_path, MINE).error


def test_another_tools_files_of_the_repository_are_completed(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    onnx = {name: REPOSITORY[name] for name in ("config.json", "tokenizer.json", "onnx/model.onnx")}
    model_folder.cache(tmp_path, "me/mine", COMMIT, files=onnx)

    found = fetcher.fetch(tmp_path, MINE)

    assert found.downloaded
    assert hub.downloaded() == ["1_Pooling/config.json", "model.safetensors"]


def test_a_transfer_that_breaks_off_is_taken_up_again(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    def break_once(method: str, path: str) -> Answer | None:
        if method == "GET" and path.endswith("/model.safetensors"):
            hub.answer_instead = no_fault
            return Answer(200, WEIGHTS[:1000], length=len(WEIGHTS))
        return None

    hub.answer_instead = break_once

    found = fetcher.fetch(tmp_path, MINE)

    assert Path(found.folder, "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (refusing(401, "/api/"), "the repository is gated, private or does not exist (accept its"),
        (refusing(403, "/api/"), "the repository is gated, private or does not exist (accept its"),
        (refusing(403, "/resolve/", X_Error_Code="GatedRepo"), "the repository is gated, private"),
        (refusing(404, "/api/", X_Error_Code="RepoNotFound"), "the Hub has no repository of that"),
        (refusing(429, "/api/"), "the Hub refuses for now: too many requests"),
        (refusing(500, "/api/"), "the Hub answered with status 500"),
        (portal, "what answers in the Hub's place is not the Hub"),
    ],
    ids=["401", "403", "gated", "404", "429", "500", "portal"],
)
def test_refusals_are_told_apart(
    tmp_path: Path, hub: Hub, fetcher: Fetcher, fault: Fault, said: str
) -> None:
    hub.answer_instead = fault

    assert f"hf:me/mine: {said}" in fetcher.fetch(tmp_path, MINE).error
    assert find_local(MINE, tmp_path) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source(hf="me/gone"), "the Hub has no repository of that name"),
        (Source(hf="me/mine", revision="v9"), "the Hub has no repository or no revision 'v9'"),
        (Source(hf="me/pickled"), "the repository holds no weights that emberd reads"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    tmp_path: Path, hub: Hub, fetcher: Fetcher, source: Source, said: str
) -> None:
    assert f"{source}: {said}" in fetcher.fetch(tmp_path, source).error
    assert hub.downloaded() == []
