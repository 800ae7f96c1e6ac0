"""Downloading from a Hub: what is fetched, how it is reported, and what goes wrong."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest

from emberd.models.local import find_local
from emberd.registry.spec import Source
from tests import model_folder
from tests.hub import COMMIT, Answer, Fault, Hub, sha256
from tests.models.fetching import Fetcher

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
    hub.resumed.clear()
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
    hub.answer_instead = lambda method, path: (
        Answer(403) if method == "HEAD" and path.endswith(".safetensors") else None
    )
    assert fetcher.fetch(tmp_path, MINE).error  # they are here, but in no snapshot yet
    assert "model.safetensors" in hub.downloaded()
    assert find_local(MINE, tmp_path) is None  # half a model is none
    hub.answer_instead = no_fault
    hub.requests.clear()

    found = fetcher.fetch(tmp_path, MINE)

    assert "model.safetensors" not in hub.downloaded()
    assert found.reports[-1] == [TOTAL, TOTAL]
    assert find_local(MINE, tmp_path)


def test_another_tools_files_of_the_repository_are_completed(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    onnx = {name: REPOSITORY[name] for name in ("config.json", "tokenizer.json", "onnx/model.onnx")}
    model_folder.cache(tmp_path, "me/mine", COMMIT, files=onnx)

    found = fetcher.fetch(tmp_path, MINE)

    assert found.downloaded
    assert hub.downloaded() == ["1_Pooling/config.json", "model.safetensors"]


@pytest.mark.slow  # huggingface_hub waits a second
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
        (refusing(401, "/api/"), "the Hub has no repository of that name, or it is private (set"),
        (refusing(403, "/api/"), "the Hub forbids it (HF_TOKEN may lack the right"),
        (refusing(401, ".safetensors", X_Error_Code="GatedRepo"), "the repository is gated (accep"),
        (refusing(403, "/resolve/", X_Error_Code="GatedRepo"), "the repository is gated (accept"),
        (refusing(404, "/api/", X_Error_Code="RepoNotFound"), "the Hub has no repository of that"),
        (refusing(404, "/api/"), "the Hub has no such file or repository"),
        (refusing(429, "/api/", Retry_After="30"), "the Hub refuses for now: too many requests (t"),
        (refusing(429, "/api/", Retry_After="30"), "(try again in 30 s; HF_TOKEN raises the limit"),
        (refusing(500, "/api/"), "the Hub answered with status 500"),
        (portal, "something other than the Hub answered"),
    ],
    ids=[
        "401",
        "403",
        "gated",
        "not granted",
        "missing",
        "404",
        "429",
        "later",
        "500",
        "portal",
    ],
)
def test_refusals_are_told_apart(
    tmp_path: Path, hub: Hub, fetcher: Fetcher, fault: Fault, said: str
) -> None:
    hub.answer_instead = fault

    error = fetcher.fetch(tmp_path, MINE).error

    assert "(hf:me/mine: " in error
    assert said in error
    assert find_local(MINE, tmp_path) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source(hf="me/gone"), "the Hub has no repository of that name"),
        (Source(hf="me/mine", revision="v9"), "the repository has no revision 'v9'"),
        (Source(hf="me/pickled"), "the repository holds no weights that emberd can read"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    tmp_path: Path, hub: Hub, fetcher: Fetcher, source: Source, said: str
) -> None:
    assert f"{source}: {said}" in fetcher.fetch(tmp_path, source).error
    assert hub.downloaded() == []


def test_the_ref_is_written_when_all_else_is_there(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    ref = tmp_path / "models--me--mine" / "refs" / "main"
    seen = []

    def look(_method: str, path: str) -> None:
        seen.append((path.rpartition("/")[2], ref.exists()))

    hub.answer_instead = look
    fetcher.fetch(tmp_path, MINE)

    assert ("model.safetensors", False) in seen
    assert not any(existed for _, existed in seen)
    assert ref.read_text() == COMMIT


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors"])
def test_what_arrives_with_another_hash_is_refused_and_fetched_anew(
    tmp_path: Path, hub: Hub, fetcher: Fetcher, name: str
) -> None:
    true = REPOSITORY[name]

    def garbled(method: str, path: str) -> Answer | None:
        if method == "HEAD" or not path.endswith(f"/{name}"):
            return None
        return Answer(200, true[:-1] + b"!")

    hub.answer_instead = garbled

    assert (
        f"{name} arrived with a different hash than the Hub" in fetcher.fetch(tmp_path, MINE).error
    )
    assert find_local(MINE, tmp_path) is None

    hub.answer_instead = no_fault
    assert Path(fetcher.fetch(tmp_path, MINE).folder, name).read_bytes() == true


def test_a_damaged_blob_of_another_pull_is_not_trusted(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    blobs = tmp_path / "models--me--mine" / "blobs"
    model_folder.write(blobs, {sha256(WEIGHTS): b"!" + WEIGHTS[1:]})

    found = fetcher.fetch(tmp_path, MINE)

    assert Path(found.folder, "model.safetensors").read_bytes() == WEIGHTS


def test_too_little_room_is_said_before_anything_is_fetched(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    stated, absurd = f'"size": {len(WEIGHTS)}'.encode(), f'"size": {10**18}'.encode()

    def claim(_method: str, path: str) -> Answer | None:
        answer = hub.true_answer(path)
        assert isinstance(answer.body, bytes)
        return (
            replace(answer, body=answer.body.replace(stated, absurd)) if "/api/" in path else None
        )

    hub.answer_instead = claim
    error = fetcher.fetch(tmp_path, MINE).error

    assert "931322574.6 GiB must be downloaded, but the disk that holds" in error
    assert "free" in error
    assert hub.downloaded() == []


@pytest.mark.slow
def test_too_many_requests_are_waited_for_as_long_as_the_hub_says(
    tmp_path: Path, hub: Hub, fetcher: Fetcher
) -> None:
    asked_s: list[float] = []

    def refuse_once(method: str, path: str) -> Answer | None:
        if method != "GET" or not path.endswith("/model.safetensors"):
            return None
        asked_s.append(time.monotonic())
        return Answer(429, headers={"Retry-After": "1"}) if len(asked_s) == 1 else None

    hub.answer_instead = refuse_once

    assert not fetcher.fetch(tmp_path, MINE).error
    assert asked_s[1] - asked_s[0] >= 1


@pytest.mark.slow
def test_a_slow_hub_is_waited_for_while_it_sends(tmp_path: Path, hub: Hub) -> None:
    def slowly() -> Iterator[bytes]:
        for start in range(0, len(WEIGHTS), len(WEIGHTS) // 8):
            time.sleep(1.4)  # in all more than the timeout
            yield WEIGHTS[start : start + len(WEIGHTS) // 8]

    hub.answer_instead = lambda method, path: (
        Answer(200, slowly(), length=len(WEIGHTS))
        if method == "GET" and path.endswith("/model.safetensors")
        else None
    )
    impatient = {"HF_HUB_DOWNLOAD_TIMEOUT": "10"}
    with Fetcher(tmp_path, hub.url, impatient) as fetcher:
        found = fetcher.fetch(tmp_path / "hub", MINE)

    assert not found.error
    assert hub.resumed == []
    assert len({done for done, _ in found.reports}) > 8  # it moved all the while


@pytest.mark.slow
def test_a_hub_that_hangs_in_a_file_is_given_up_and_the_part_kept(tmp_path: Path, hub: Hub) -> None:
    release = Event()

    def then_hang(content: bytes) -> Iterator[bytes]:
        yield content
        release.wait(30)

    def hang(method: str, path: str) -> Answer | None:
        if method != "GET" or not path.endswith("/model.safetensors"):
            return None
        if hub.resumed:
            return Answer(206, then_hang(b""), length=len(WEIGHTS) // 2)
        return Answer(200, then_hang(WEIGHTS[: len(WEIGHTS) // 2]), length=len(WEIGHTS))

    hub.answer_instead = hang
    with Fetcher(tmp_path, hub.url, {"HF_HUB_DOWNLOAD_TIMEOUT": "1"}) as fetcher:
        error = fetcher.fetch(tmp_path / "hub", MINE).error
        release.set()

    assert "the Hub stopped sending model.safetensors (ReadTimeout); what arrived is kept" in error
    (part,) = (tmp_path / "hub").rglob("*.part")
    assert part.read_bytes() == WEIGHTS[: len(WEIGHTS) // 2]


def test_the_token_goes_to_the_hub_and_not_where_it_sends_us(tmp_path: Path, hub: Hub) -> None:
    with Hub({}) as store:

        def elsewhere(_method: str, path: str) -> Answer | None:
            if not path.endswith("/model.safetensors"):
                return None
            headers = {
                "Location": f"{store.url}/blob",
                "X-Linked-Etag": f'"{sha256(WEIGHTS)}"',
                "X-Linked-Size": str(len(WEIGHTS)),
                "X-Repo-Commit": COMMIT,
            }
            return Answer(302, headers=headers)

        store.answer_instead = lambda _method, _path: Answer(200, WEIGHTS)
        hub.answer_instead = elsewhere
        hub.tokens.clear()
        with Fetcher(tmp_path, hub.url, {"HF_TOKEN": "hf_secret"}) as fetcher:
            found = fetcher.fetch(tmp_path / "hub", MINE)

    assert Path(found.folder, "model.safetensors").read_bytes() == WEIGHTS
    assert hub.tokens == {"Bearer hf_secret"}
    assert store.tokens == {None}


def test_a_token_that_the_hub_does_not_know_is_named_and_not_shown(
    tmp_path: Path, hub: Hub
) -> None:
    hub.answer_instead = refusing(401, "/api/")
    with Fetcher(tmp_path, hub.url, {"HF_TOKEN": "hf_secret"}) as fetcher:
        error = fetcher.fetch(tmp_path / "hub", MINE).error

    assert "the Hub does not accept HF_TOKEN" in error
    assert "secret" not in error
