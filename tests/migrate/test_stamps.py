"""A server learns by itself whose vectors a stamped store holds, wherever it was stamped."""

import json
import shutil
from pathlib import Path

import pytest

from emberd.spaces.stores import StoresFile
from tests.migrate import stores
from tests.serving import Server, run_emberd, wait_for

ROWS = 40
CONFIG = "default: {default}\nstores: {{notes: {{path: notes}}, gone: {{path: gone}}}}\n"


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was migrated to minilm-f32 by an emberd that is not here any more."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    texts = stores.texts(ROWS)
    old = stores.vectors(tuple(texts), "minilm")
    stores.make_cmem(elsewhere / "notes", texts, old)
    migrate(elsewhere / "home", elsewhere / "notes", "minilm-f32")
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


def test_a_store_that_was_stamped_elsewhere_is_warned_of_unasked(home: Path) -> None:
    with Server(home) as server:
        (said,) = wait_for(lambda: warnings(server))
        assert "notes holds vectors made by minilm-f32, and the default is minilm." in said
        wait_for(lambda: "A store cannot be looked at. gone:" in server.log())

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
    home: Path, tmp_path: Path
) -> None:
    database = stores.connect(home / "notes" / "memories.db")
    foreign = stores.texts(ROWS + 9)[-9:]
    vectors = stores.vectors(tuple(foreign), "minilm")
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
