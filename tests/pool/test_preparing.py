"""A running server compiles its models before anybody asks for them, with real workers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.config.load import load_config
from emberd.models.prepared import in_hand
from emberd.pool.preparing import LOW_PRIORITY, chosen, needs_preparing
from emberd.spaces.lock import LockEntry, LockFile
from tests.faults.troubled import CONFIG as TROUBLED
from tests.faults.troubled import serve_troubled
from tests.serving import Server, age, clean_environ, has_ended, wait_for

PREPARE = {"EMBERD_LIMITS_PREPARE": "true"}
CONFIG = """\
default: tiny
models:
  tiny: {{sources: [{{path: {folder}}}], dimensions: 64, {rest}}}
"""


def begin(server: Server) -> None:
    """Have a server prepare its models now, and not only some seconds after its start."""
    assert server.http.post("/reload").status_code == 200


def remembered(server: Server, name: str) -> LockEntry | None:
    return LockFile(server.home / "state").read().get(name)


def compiled(home: Path) -> dict[str, int]:
    """Return what is in the cache: files, and when each was written."""
    return {str(file): file.stat().st_mtime_ns for file in (home / "cache").glob("*/*/*")}


def age_all(home: Path) -> None:
    """Make what is compiled look as if it had been for long; what is new may not be deleted."""
    for folder in (home / "cache").glob("*/*"):
        age(folder)


@pytest.fixture
def folder(home: Path) -> Path:
    """A small model."""
    tiny_bert(home / "model")
    return home / "model"


def config(folder: Path, rest: str) -> str:
    return CONFIG.format(folder=folder, rest=rest)


def serve(home: Path, text: str) -> Server:
    return Server(home, config=text, environ=PREPARE, share_compiled=False)


def test_a_changed_entry_is_compiled_before_it_is_asked_for(home: Path, folder: Path) -> None:
    with serve(home, config(folder, "pooling: mean")) as own:
        own.embed("load")
        before = compiled(home)
        age_all(home)
        (home / "config.yaml").write_text(config(folder, "pooling: cls"))
        begin(own)
        wait_for(lambda: "tiny: prepared in" in own.log(), within_s=120)
        wait_for(lambda: not any(Path(file).exists() for file in before))  # the space is given back

        after = compiled(home)
        assert len(after) == 1
        assert own.row("tiny")["state"] == "cold"
        own.embed("text")
        assert compiled(home) == after
    now = load_config(environ=clean_environ(home))
    assert not needs_preparing(now.catalog.get("tiny"), now.homes)
    assert own.log().count("tiny: prepared in") == 1


def test_a_limit_that_changed_needs_no_second_compilation(home: Path, folder: Path) -> None:
    with serve(home, config(folder, "pooling: mean")) as own:
        own.embed("load")
        before = compiled(home)
        (home / "config.yaml").write_text(config(folder, "pooling: mean, max_tokens: 16"))
        begin(own)
        wait_for(lambda: "tiny: prepared in" in own.log(), within_s=120)

        assert compiled(home) == before
        entry = remembered(own, "tiny")
        assert entry
        assert entry.now.options.max_tokens == 16


def test_a_model_that_cannot_be_loaded_is_tried_once(home: Path, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")
    with serve(home, config(folder, "pooling: mean")) as own:
        begin(own)
        wait_for(lambda: "tiny could not be prepared" in own.log())
        begin(own)

        assert own.http.get("/health").status_code == 200
    assert own.log().count("tiny could not be prepared") == 1


def test_what_cannot_be_stored_is_not_tried_again_unasked(home: Path, folder: Path) -> None:
    (home / "cache").mkdir()
    (home / "cache" / "openvino").touch()  # a file in the place of the folder
    with serve(home, config(folder, "pooling: mean")) as own:
        begin(own)
        wait_for(lambda: "tiny could not be prepared" in own.log(), within_s=120)
        assert f"is compiled for tiny cannot be stored in {home / 'cache'}" in own.log()
    more = f"  more: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: cls}}\n"
    with serve(home, config(folder, "pooling: mean") + more) as own:
        begin(own)
        wait_for(lambda: "more could not be prepared" in own.log(), within_s=120)

        assert own.log().count("tiny: preparing") == 1


@pytest.fixture
def held(home: Path) -> Server:
    """A server whose default is being prepared, and will be until the file `hold` is gone."""
    home.mkdir()
    (home / "hold").touch()
    own = serve_troubled(
        home, config="default: troubled\n" + TROUBLED, environ=PREPARE, share_compiled=False
    )
    begin(own)
    return own


def workers(server: Server) -> Sequence[psutil.Process]:
    return wait_for(server.workers)


def test_a_server_that_ends_leaves_no_process_behind(held: Server) -> None:
    with held:
        (worker,) = workers(held)

        assert held.stop() == 0
        wait_for(lambda: has_ended(worker))


def test_preparing_makes_way_for_a_start_and_goes_on_after_it(held: Server) -> None:
    with held:
        (worker,) = workers(held)
        wait_for(lambda: worker.nice() == LOW_PRIORITY)

        held.embed("text", model="minilm")
        wait_for(lambda: has_ended(worker))
        (held.home / "hold").unlink()
        wait_for(lambda: remembered(held, "troubled"), within_s=120)

        assert held.row("troubled")["state"] == "cold"
        assert held.row("troubled")["loads"] == 0


def opens_it(process: psutil.Process, file: Path) -> bool:
    """Say whether a process has a file open."""
    with suppress(psutil.Error):  # it is gone
        return str(file) in [opened.path for opened in process.open_files()]
    return False


def test_remove_waits_for_a_model_that_is_being_prepared(held: Server) -> None:
    lock = held.home / "state" / "prepare.flock"
    with held, ThreadPoolExecutor(1) as thread:
        workers(held)
        removing = thread.submit(held.run, "remove", "troubled")
        ours = psutil.Process()
        wait_for(
            lambda: (
                removing.done()
                or any(
                    opens_it(process, lock)
                    for process in ours.children(recursive=True)
                    if process.pid != held.process.pid
                )
            )
        )
        (held.home / "hold").unlink()
        wait_for(lambda: "troubled: prepared in" in held.log(), within_s=120)

        assert removing.result().returncode == 0
        assert not compiled(held.home)
        entry = remembered(held, "troubled")
        assert entry
        assert entry.is_removed


def test_a_server_waits_for_a_command_and_leaves_alone_what_that_has_removed(
    home: Path, folder: Path
) -> None:
    more = [
        f"  {name}: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: cls}}\n"
        for name in ("removed", "last")
    ]
    with serve(home, "".join([config(folder, "pooling: mean"), *more])) as own:
        with in_hand(home / "state", 30.0):
            begin(own)
            LockFile(home / "state").put("removed", LockEntry(source="", folder="").removed())
            assert "preparing" not in own.log()
        wait_for(lambda: "last: prepared in" in own.log(), within_s=120)

        assert "tiny: prepared in" in own.log()
        assert "removed: preparing" not in own.log()


def test_what_is_only_in_the_registry_is_left_alone(home: Path, folder: Path) -> None:
    text = config(folder, "pooling: mean") + "  minilm: {pinned: true}\n"
    (home / "config.yaml").write_text(text)
    LockFile(home / "state").put("bge-small", LockEntry(source="", folder=""))

    names = [spec.name for spec in chosen(load_config(environ=clean_environ(home)))]

    assert names == ["tiny", "minilm", "bge-small"]

    LockFile(home / "state").put("bge-small", LockEntry(source="", folder="").removed())
    names = [spec.name for spec in chosen(load_config(environ=clean_environ(home)))]
    assert names == ["tiny", "minilm"]
