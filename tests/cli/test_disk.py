"""The disk space that models take: how it is shown, shared and freed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server, age, run_emberd, wait_for

HUB = "{sources: [{hf: me/tiny}], dimensions: 64, pooling: mean"
CONFIG = f"""\
default: tiny
models:
  tiny: {HUB}}}
  asking: {HUB}, max_tokens: 16, prompts: {{query: 'q: '}}}}
  other: {HUB.replace("mean", "cls")}}}
"""


def make(home: Path) -> None:
    """Make a home whose Hub's cache has a small model, which three entries use."""
    repository = home / "hf" / "hub" / "models--me--tiny"
    tiny_bert(repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    (home / "config.yaml").write_text(CONFIG)


@pytest.fixture
def home(home: Path) -> Path:
    """A home with a small model that nobody has loaded."""
    make(home)
    return home


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose model was loaded; not to be changed."""
    home = tmp_path_factory.mktemp("loaded") / "home"
    make(home)
    embed(home, "tiny")
    return home


@pytest.fixture
def loaded(loaded_once: Path, tmp_path: Path) -> Path:
    """A home of its own for each test, whose model was loaded."""
    home = tmp_path / "home"
    shutil.copytree(loaded_once, home)
    lock = home / "state" / "lock.json"
    lock.write_text(lock.read_text().replace(str(loaded_once), str(home)))
    return home


def embed(home: Path, *models: str) -> None:
    for model in models:
        done = run_emberd("embed", "--model", model, "text", home=home, share_compiled=False)
        assert done.returncode == 0, done.stderr


def blobs(home: Path) -> list[Path]:
    return sorted((home / "cache").rglob("*.blob"))


def said(done: "subprocess.CompletedProcess[bytes]") -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
def test_one_folder_under_two_entries_is_compiled_once(home: Path) -> None:
    """Prompts and the limit are not part of what is compiled; the pooling is."""
    embed(home, "tiny", "asking")
    assert len(blobs(home)) == 1

    embed(home, "other")
    assert len(blobs(home)) == 2


def test_remove_takes_the_compiled_copy_along(loaded: Path) -> None:
    size = sum(512 * blob.stat().st_blocks for blob in blobs(loaded))

    answer = said(run_emberd("remove", "tiny", "--yes", "--json", home=loaded))

    assert blobs(loaded) == []
    assert answer["compiled_bytes"] >= size  # type: ignore[operator]
    assert answer["freed_bytes"] > answer["compiled_bytes"]  # type: ignore[operator]


def test_remove_leaves_what_the_first_start_of_another_model_has_just_compiled(
    loaded: Path,
) -> None:
    """Its worker stores it before the server has put the model into lock.json."""
    starting, left = (loaded / "cache" / "openvino" / (digit * 16) for digit in "12")
    for folder in (starting, left):
        folder.mkdir()
        (folder / "f32.blob").write_bytes(b"x")
        age(folder)
    (starting / "f32.blob").write_bytes(b"compiled now")

    done = run_emberd("remove", "tiny", "--yes", home=loaded)

    assert done.returncode == 0, done.stderr
    assert blobs(loaded) == [starting / "f32.blob"]


@pytest.mark.slow
def test_what_another_entry_uses_stays(home: Path) -> None:
    embed(home, "tiny", "asking", "other")

    done = run_emberd("remove", "other", home=home)

    assert b"used by tiny, asking: kept" in done.stdout
    assert b"Compiled copies that no model uses: removed" in done.stdout
    assert len(blobs(home)) == 1
    embed(home, "tiny", "asking")
    assert len(blobs(home)) == 1


@pytest.mark.slow
def test_the_copy_of_a_folder_of_ones_own_goes_and_the_folder_stays(
    home: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    tiny_bert(folder)
    config = f"models: {{mine: {{sources: [{{path: {folder}}}], dimensions: 64, pooling: mean}}}}"
    (home / "config.yaml").write_text(config)
    embed(home, "mine")

    done = run_emberd("remove", "mine", home=home)

    assert (done.returncode, blobs(home)) == (0, [])
    assert (folder / "model.safetensors").exists()
    embed(home, "mine")


def test_list_shows_the_disk_that_is_used(loaded: Path) -> None:
    (stray := loaded / "cache" / "openvino" / "of-an-older-version.blob").write_bytes(b"x" * 9000)
    age(stray)

    listed = json.loads(run_emberd("list", "--json", home=loaded).stdout)
    shown = run_emberd("list", "-v", home=loaded).stdout.decode()

    rows = {row["name"]: row for row in listed["models"]}
    (blob,) = [blob for blob in blobs(loaded) if blob != stray]
    assert rows["tiny"]["compiled_bytes"] >= blob.stat().st_size
    assert rows["tiny"]["files_bytes"] > 300_000
    assert (rows["mpnet"]["files_bytes"], rows["mpnet"]["compiled_bytes"]) == (0, 0)
    assert listed["unused_bytes"] >= 9000
    assert {"disk", "compiled"} <= set(shown.splitlines()[0].split())
    assert "Compiled copies that no model uses" in shown


def test_the_server_gives_back_what_no_model_uses(loaded: Path) -> None:
    stray = loaded / "cache" / "openvino" / "of-an-older-version.blob"
    stray.write_bytes(b"x")
    age(stray)

    with Server(loaded, share_compiled=False) as own:
        wait_for(lambda: not stray.exists())
        assert len(blobs(loaded)) == 1
        own.embed("text")


@pytest.mark.slow
def test_new_files_of_a_model_leave_no_old_copy(home: Path) -> None:
    embed(home, "tiny")
    (old,) = blobs(home)
    snapshot = home / "hf" / "hub" / "models--me--tiny" / "snapshots" / ("c" * 40)
    config = json.loads((snapshot / "config.json").read_text())
    (snapshot / "config.json").write_text(json.dumps(config | {"another": True}))
    embed(home, "tiny")
    assert len(blobs(home)) == 2
    age(old.parent)

    with Server(home, share_compiled=False):
        wait_for(lambda: not old.exists())

    assert len(blobs(home)) == 1
