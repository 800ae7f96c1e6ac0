"""Files of ours that others write into, piece by piece, while they are read."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from emberd.api.access import BearerTokens
from emberd.spaces.lock import LockEntry, LockFile
from tests.serving import Server, wait_for

TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"
WRITER = """
import random, sys, time
file, *contents = sys.argv[1:]
chance = random.Random(17)
for turn in range(24):
    lines = contents[turn % len(contents)].splitlines(keepends=True)
    with open(file, "w") as opened:  # truncates it
        time.sleep(chance.choice((0, 0.02, 0.15, 0.3)))
        while lines:
            few = chance.randint(1, 3)
            opened.write("".join(lines[:few]))
            opened.flush()
            del lines[:few]
            time.sleep(chance.choice((0, 0.02, 0.15, 0.3)))
    time.sleep(chance.choice((0.1, 1.5)))
"""
ENTRY = """
  {name}:
    sources: [{{path: {folder}}}]
    dimensions: 64
    pooling: mean
"""


@contextmanager
def writing(file: Path, *contents: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Have another process write the contents in turn into the file, until it is done."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(file), *contents]) as writer:
        try:
            yield writer
        finally:
            writer.kill()


@pytest.mark.slow
def test_a_config_file_rewritten_in_place_loses_no_model_while_it_is_written(
    home: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(TINY, tmp_path / "tiny"))
    other, tiny = (ENTRY.format(name=name, folder=folder) for name in ("other", "tiny"))
    short = f"limits: {{idle_unload: 10m}}\nmodels:{tiny}"
    long = f"limits: {{idle_unload: 11m}}\nmodels:{other}{tiny}    idle_unload: 20m\n"
    with Server(home, config=short) as own, ThreadPoolExecutor(2) as threads:
        file = home / "config.yaml"
        with writing(file, long, short) as writer:

            def ask() -> list[int]:
                found = []
                while writer.poll() is None:
                    body = {"texts": ["text"], "model": "tiny"}
                    found.append(own.http.post("/embed", json=body).status_code)
                return found

            asking = [threads.submit(ask) for _ in range(2)]
            statuses = [status for each in asking for status in each.result()]

        assert set(statuses) == {200}
        assert file.read_text() == short
        wait_for(lambda: own.http.get("/reload").json()["changes"] == [])
        assert own.http.post("/embed", json={"texts": ["a"], "model": "other"}).status_code == 404
        assert own.log().count("The config file was loaded") >= 4
        assert "was not loaded" not in own.log()


@pytest.mark.slow
def test_a_file_that_is_emptied_means_the_defaults(home: Path) -> None:
    with Server(home, config="default: minilm-f32\n") as own:
        (home / "config.yaml").write_text("")

        wait_for(lambda: own.http.get("/health").json()["name"] == "minilm")


@pytest.mark.slow
def test_a_reload_that_is_asked_for_waits_for_who_writes_too(home: Path) -> None:
    with Server(home, config="default: minilm-f32\n") as own, ThreadPoolExecutor(1) as thread:
        with (home / "config.yaml").open("w") as opened:
            asked = thread.submit(own.http.post, "/reload")
            time.sleep(0.4)
            opened.write("default: mpnet\n")

        assert asked.result().json()["default"]["name"] == "mpnet"
        (home / "config.yaml").write_text("")
        assert own.http.post("/reload").json()["default"]["name"] == "minilm"


@pytest.mark.slow
def test_a_file_that_is_away_for_a_moment_is_not_missed(home: Path) -> None:
    with Server(home, config="default: minilm-f32\n") as own:
        for name in ("minilm", "minilm-f32", "minilm"):
            (home / "config.yaml").rename(home / "config.yaml~")
            time.sleep(0.3)  # longer than the watcher waits for quiet
            (home / "config.yaml").write_text(f"default: {name}\n")
            wait_for(lambda: own.http.get("/health").json()["name"] == name)  # noqa: B023

        assert "is gone" not in own.log()


@pytest.mark.slow
def test_a_folder_in_place_of_the_file_for_a_moment_changes_nothing(home: Path) -> None:
    with Server(home, config="default: minilm-f32\n") as own:
        (home / "config.yaml").rename(home / "kept")
        (home / "config.yaml").mkdir()
        wait_for(lambda: own.http.get("/health").json()["warnings"])
        assert own.http.get("/health").json()["name"] == "minilm-f32"
        (home / "config.yaml").rmdir()
        (home / "kept").rename(home / "config.yaml")
        wait_for(lambda: not own.http.get("/health").json()["warnings"])


def test_half_a_token_opens_nothing_while_its_file_is_written(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text("first-token\nsecond-token\n")
    tokens = BearerTokens(None, file)

    with file.open("w") as opened:
        assert tokens.accepts("first-token")  # empty now
        opened.write("first-tok")
        opened.flush()
        assert not tokens.accepts("first-tok")
        assert tokens.accepts("second-token")
        opened.write("en\nthird\n")
    wait_for(lambda: tokens.accepts("third"))
    assert tokens.accepts("first-token")
    assert not tokens.accepts("second-token")


def test_an_entry_stays_while_somebody_writes_into_the_lock(tmp_path: Path) -> None:
    entry = LockEntry(source="package:some", folder="/somewhere")
    lock = LockFile(tmp_path)
    lock.put("mine", entry)
    assert lock.read() == {"mine": entry}
    whole = (tmp_path / "lock.json").read_text()

    with (tmp_path / "lock.json").open("w") as opened:
        assert lock.read() == {"mine": entry}  # empty now
        opened.write(whole[:100])
        opened.flush()
        assert lock.read() == {"mine": entry}
        lock.put("other", entry)

    assert LockFile(tmp_path).read() == {"mine": entry, "other": entry}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lock.json", "stores.json"])
def test_what_the_server_knew_stays_while_somebody_writes_into_its_files(
    home: Path, name: str
) -> None:
    with Server(home) as own:
        own.embed("text")
        own.http.post("/unload")
        before = own.http.get("/health").json()
        assert before["fingerprint"]

        (home / "state" / name).write_text("{")

        assert own.http.get("/health").json() == before
        own.embed("text")
        own.http.post("/unload")
        assert own.row()["fingerprint"] == before["fingerprint"]
        found = json.loads((home / "state" / "lock.json").read_bytes())
        assert re.fullmatch("[0-9a-f]{16}", found["models"]["minilm"]["fingerprint"])


def test_another_content_of_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "lock.json"
    lock, writer = LockFile(tmp_path), LockFile(tmp_path)
    writer.put("mine", LockEntry(source="package:some", folder="/one"))
    assert lock.read()["mine"].folder == "/one"
    before = file.stat()

    file.write_text(file.read_text().replace("/one", "/two"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert lock.read()["mine"].folder == "/two"
