"""A server learns by itself whose vectors a stamped store holds, wherever it was stamped."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.api.stamps import Stamps
from emberd.config.load import Config, load_config
from emberd.migrate.embedding import PoolEmbedder, find_target
from emberd.migrate.joint_run import migrate_all
from emberd.migrate.known import find
from emberd.migrate.stamps import note_stamps
from emberd.spaces.stores import StoresFile
from tests.event_loop import in_event_loop
from tests.migrate import stores
from tests.migrate.conftest import Made
from tests.serving import Server, clean_environ, run_emberd, wait_for

ROWS = 40
CONFIG = "default: {default}\nstores: {{notes: {{path: notes}}, gone: {{path: gone}}}}\n"


@pytest.fixture(scope="module")
def stamped(
    tmp_path_factory: pytest.TempPathFactory,
    shared_home: Path,
    embedder: PoolEmbedder,
    made: Made,
) -> Path:
    """A store that was migrated to minilm-f32 by an emberd that is no longer here."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    stores.make_cmem(elsewhere / "notes", made.texts[:ROWS], made.old[:ROWS])
    config = load_config(environ=clean_environ(shared_home))
    store = find(config, str(elsewhere / "notes"))
    target = find_target(config, embedder, "minilm-f32")
    migrate_all([store], target, embedder, elsewhere / "state")
    return elsewhere / "notes"


@pytest.fixture
def home(stamped: Path, tmp_path: Path) -> Path:
    home = tmp_path / "home"
    shutil.copytree(stamped, home / "notes")
    (home / "config.yaml").write_text(CONFIG.format(default="minilm"))
    return home


def migrate(home: Path, store: Path, model: str) -> None:
    done = run_emberd("migrate", "run", str(store), "--to", model, "--yes", home=home)
    assert done.returncode == 0, done.stderr


def warnings(server: Server) -> list[str]:
    return [each["message"] for each in server.http.get("/health").json()["warnings"]]


def is_known(home: Path) -> bool:
    return "notes" in StoresFile(home / "state").read()


@in_event_loop
async def test_a_store_that_was_stamped_elsewhere_is_noted_by_a_process_of_its_own(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBERD_HOME", str(home))  # which that process has from the server
    config, stamps = load_config(environ=clean_environ(home)), Stamps()

    stamps.look(config)
    async with asyncio.timeout(30):
        while "gone:" not in caplog.text:  # noqa: ASYNC110 - no event announces it
            await asyncio.sleep(0.01)
    await stamps.close()

    assert StoresFile(home / "state").read()["notes"].model == "minilm-f32"


@in_event_loop
async def test_what_is_asked_for_during_a_look_is_looked_at_once_after_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stamps = load_config(environ=clean_environ(home)), Stamps()
    latest = replace(config, settings=replace(config.settings, default="mpnet"))
    looks: list[str] = []
    ended = asyncio.Event()

    async def read(config: Config) -> None:
        looks.append(config.settings.default)
        if len(looks) == 1:
            stamps.look(config)
            stamps.look(latest)
            raise OSError  # which is logged
        ended.set()

    monkeypatch.setattr("emberd.api.stamps._read", read)
    stamps.look(config)
    async with asyncio.timeout(10):
        await ended.wait()
    await stamps.close()

    assert looks == ["minilm", "mpnet"]


def test_of_stores_only_those_that_can_be_read_are_noted(home: Path) -> None:
    config = load_config(environ=clean_environ(home))

    unread = note_stamps(config)

    noted = StoresFile(home / "state").read()
    assert (list(unread), list(noted)) == (["gone"], ["notes"])
    assert (noted["notes"].model, noted["notes"].kind) == ("minilm-f32", "cmem")
    checked = replace(noted["notes"], model=None)
    StoresFile(home / "state").put("notes", checked)
    note_stamps(config)
    assert StoresFile(home / "state").read() == {"notes": checked}  # the stamp is the same one


@pytest.mark.slow
def test_a_store_that_was_stamped_elsewhere_is_warned_of_unasked(home: Path) -> None:
    with Server(home) as server:
        (said,) = wait_for(lambda: warnings(server))
        assert "notes holds vectors made by minilm-f32, and the default is minilm." in said
        wait_for(lambda: "gone:" in server.log())

        (home / "config.yaml").write_text(CONFIG.format(default="minilm-f32"))
        wait_for(lambda: not warnings(server))
        server.embed("now the fingerprint decides")
        assert warnings(server) == []


@pytest.mark.slow
def test_a_store_is_looked_at_when_a_reload_names_it(home: Path) -> None:
    whole = (home / "config.yaml").read_text()
    (home / "config.yaml").write_text("default: minilm\n")
    with Server(home) as server:
        assert warnings(server) == []
        (home / "config.yaml").write_text(whole)
        server.http.post("/reload")

        (said,) = wait_for(lambda: warnings(server))
        assert "made by minilm-f32" in said


@pytest.mark.slow
def test_a_new_stamp_is_noted_and_what_a_check_found_after_it_stays(
    home: Path, made: Made, tmp_path: Path
) -> None:
    database = stores.connect(home / "notes" / "memories.db")
    foreign, vectors = made.texts[ROWS : ROWS + 9], made.old[ROWS : ROWS + 9]
    stores.add(database, list(range(500, 509)), foreign, vectors)
    database.close()
    mixed = run_emberd("migrate", "check", "notes", "--sample", "all", home=home)
    assert mixed.returncode == 4, mixed.stdout
    with Server(home) as server:
        wait_for(lambda: "gone:" in server.log())
        (said,) = warnings(server)
        assert "vectors of more than one model" in said

    migrate(tmp_path / "other", home / "notes", "minilm")
    with Server(home) as server:
        wait_for(lambda: not warnings(server))

    shutil.rmtree(home / "notes")
    stores.make_cmem(home / "notes", foreign, vectors)
    with Server(home):
        wait_for(lambda: not is_known(home))
    assert json.loads((home / "state" / "stores.json").read_text())["stores"] == {}
