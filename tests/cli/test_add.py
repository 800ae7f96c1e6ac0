"""`emberd add`: an entry is proposed, accepted, written, pulled and verified, end to end."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from emberd.vectors import lowest_cosine
from tests.hub import COMMIT, Answer, Hub
from tests.proposal.folders import described
from tests.serving import Server, clean_environ, run_emberd
from tests.terminal import run_on_a_terminal

FILE = """\
# mine, for years
default: minilm   # as ever
models:
  other: {sources: [{path: /x}], dimensions: 8, pooling: cls}  # one more
  # and no more than that

limits: {max_texts: 9}
"""
NEWER = "b" * 40

Emberd = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model that says all that an entry needs."""
    return described(tmp_path / "Tiny-v1")


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    """A Hub with that model."""
    with Hub({"me/Tiny-v1": files_in(folder)}) as running:
        yield running


@pytest.fixture
def config(home: Path) -> Path:
    home.mkdir()
    (file := home / "config.yaml").write_text(FILE)
    return file


@pytest.fixture
def emberd(home: Path, hub: Hub, config: Path) -> Emberd:
    """The command line, for which that Hub is the Hub; keywords are further variables."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        environ = clean_environ(home) | hub.variables | variables
        return run_emberd(*arguments, home=home, environ=environ)

    return run


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def vectors(done: "subprocess.CompletedProcess[bytes]") -> Any:  # noqa: ANN401 - an array
    assert done.returncode == 0, done.stderr
    return np.array([json.loads(line)["embedding"] for line in done.stdout.splitlines()])


def test_a_repository_is_written_pinned_pulled_and_verified(
    config: Path, hub: Hub, emberd: Emberd
) -> None:
    added = emberd("add", "me/Tiny-v1", "--yes")
    asked = len(hub.requests)
    embedded = emberd("embed", "the cat eats", "--model", "tiny-v1")

    assert added.returncode == 0, added.stderr
    lines = (
        "  tiny-v1:\n"
        f"    sources: [{{hf: me/Tiny-v1, revision: {COMMIT}}}]  # the commit that was read\n"
        "    dimensions: 64       # config.json (hidden_size)\n"
        "    pooling: mean        # 1_Pooling/config.json\n"
        "    normalize: true      # modules.json (lists Normalize)\n"
        "    max_tokens: 32       # sentence_bert_config.json (max_seq_length)\n"
        "    precision: f32       # emberd's default: as exact as the file\n"
        "    architecture: bert   # config.json (model_type)\n"
        "    licence: apache-2.0  # README.md (license)\n"
    )
    assert config.read_text() == FILE.replace("than that\n", f"than that\n{lines}")
    shown = added.stdout.decode()
    assert f"models:\n{lines}" in shown
    assert "Its card says: licence: apache-2.0; languages: en, no; base model: me/base" in shown
    assert f"tiny-v1: pulled from hf:me/Tiny-v1@{COMMIT}" in shown
    assert "its files agree with the entry" in shown
    assert vectors(embedded).shape == (1, 64)
    assert len(hub.requests) == asked


def test_a_proposal_downloads_no_weights_and_writes_nothing(
    config: Path, hub: Hub, emberd: Emberd
) -> None:
    found = json.loads(emberd("add", "me/Tiny-v1", "--json").stdout)

    assert config.read_text() == FILE
    assert found["status"] == "proposed"
    assert found["name"] == "tiny-v1"
    assert found["entry"]["sources"] == [{"hf": "me/Tiny-v1", "revision": COMMIT}]
    assert found["origins"].keys() == found["entry"].keys()
    assert yaml.safe_load(found["yaml"]) == {"models": {"tiny-v1": found["entry"]}}
    assert found["card"] == {
        "licence": "apache-2.0",
        "languages": ["en", "no"],
        "base_models": ["me/base"],
    }
    assert found["size_bytes"] > 300_000
    assert "model.safetensors" not in hub.downloaded()
    assert not any(row["pulled"] for row in listed(emberd) if row["name"] == "tiny-v1")


def listed(emberd: Emberd) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(emberd("list", "--json").stdout)["models"]
    return rows


def test_where_nobody_can_be_asked_it_says_how_to_accept(config: Path, emberd: Emberd) -> None:
    done = emberd("add", "me/Tiny-v1", "--name", "mine")

    assert done.returncode == 1
    assert b"models:\n  mine:\n" in done.stdout
    assert b"hint: To accept this entry, run `emberd add me/Tiny-v1 --name mine --yes`." in (
        done.stderr
    )
    assert config.read_text() == FILE


@pytest.mark.parametrize(("typed", "accepts"), [(b"y\n", True), (b"n\n", False)])
def test_on_a_terminal_it_asks(config: Path, folder: Path, typed: bytes, accepts: bool) -> None:
    done = run_on_a_terminal(config.parent, "add", str(folder), typed=typed, width=200)

    shown = done.stdout.decode()
    assert f"Write it into {config}, then pull and check the model? [y/N]" in shown
    assert (done.returncode == 0) is accepts
    assert ("tiny-v1" in yaml.safe_load(config.read_text())["models"]) is accepts
    assert ("Nothing was changed" in shown) is not accepts
    if not accepts:
        assert config.read_text() == FILE


def test_programs_get_what_was_done(config: Path, folder: Path) -> None:
    done = run_emberd("add", str(folder), "--yes", "--json", home=config.parent)

    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr, said["status"]) == (0, b"", "added")
    assert said["file"] == str(config)
    assert said["pulled"]["source"] == f"path:{folder}"
    assert {check["verdict"] for check in said["checks"]} <= {"ok", "skipped", "note", "warning"}
    assert yaml.safe_load(config.read_text())["models"]["tiny-v1"] == said["entry"]


def test_what_no_file_says_is_asked_for_by_an_option(config: Path, folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").unlink()
    home = config.parent

    asked = run_emberd("add", str(folder), "--yes", home=home)
    as_json = json.loads(run_emberd("add", str(folder), "--json", home=home).stdout)
    stated = run_emberd("add", str(folder), "--yes", "--pooling", "cls", home=home)

    assert asked.returncode == 1
    assert b"    # pooling: ?" in asked.stdout
    assert b"pooling: not stated by any file" in asked.stderr
    assert b"then add --pooling mean|cls|last." in asked.stderr
    assert [each["key"] for each in as_json["open"]] == ["pooling"]
    assert stated.returncode == 0, stated.stderr
    assert b"pooling: cls         # --pooling\n" in stated.stdout
    assert yaml.safe_load(config.read_text())["models"]["tiny-v1"]["pooling"] == "cls"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "own"), [((), "minilm-f32"), (("--precision", "4bit"), "minilm")]
)
def test_real_minilm_from_a_folder_gives_the_catalogs_vectors(
    home: Path, minilm: Path, precision: tuple[str, ...], own: str
) -> None:
    texts = ["A kettle boils.", "东京的天气怎么样？", "", "word " * 200]

    added = run_emberd("add", str(minilm), "--name", "mine", *precision, "--yes", home=home)
    mine, catalogs = (
        vectors(run_emberd("embed", "--model", model, "--", *texts, home=home))
        for model in ("mine", own)
    )

    assert added.returncode == 0, added.stderr
    assert lowest_cosine(mine, catalogs) >= 0.9999


def test_a_running_server_knows_it_at_once(home: Path, folder: Path) -> None:
    with Server(home, config=FILE.replace("minilm   # as ever", "minilm-f32")) as server:
        added = server.run("add", str(folder), "--name", "mine", "--yes", "--default")

        assert added.returncode == 0, added.stderr
        assert server.embed("the cat eats", model="mine")["dimensions"] == 64
        assert server.embed("the cat eats")["model"] == "mine"
        assert yaml.safe_load((home / "config.yaml").read_text())["default"] == "mine"
        assert b"mine is now the default" in added.stdout


def test_a_name_that_is_taken_and_a_model_that_is_there(config: Path, emberd: Emberd) -> None:
    taken = emberd("add", "me/Tiny-v1", "--name", "MPNet", "--yes")
    odd = emberd("add", "me/Tiny-v1", "--name", "a b", "--yes")
    there = emberd("add", "BAAI/bge-small-en-v1.5", "--yes")

    assert (taken.returncode, odd.returncode, there.returncode) == (1, 1, 1)
    assert b"already a model called MPNet (it means mpnet)" in taken.stderr
    assert b"hint: Choose another name with --name, or edit models.mpnet" in taken.stderr
    assert b"letters, digits, dots, dashes and underscores" in odd.stderr
    assert b"BAAI/bge-small-en-v1.5 is already among the models: it is bge-small." in there.stderr
    assert config.read_text() == FILE


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("minilm", "minilm is already among the models."),
        ("MiniLM", "MiniLM is already among the models: it is minilm."),
        ("all-minilm", "all-minilm is already among the models: it is minilm."),
        ("bge-small:query", "bge-small:query is already among the models: it is bge-small."),
        ("other", "other is already among the models."),
        ("mine", "mine is already among the models: it is other."),
    ],
)
@pytest.mark.parametrize("more", [(), ("--name", "new")])
def test_the_name_of_a_model_that_is_there_is_told_with_how_to_use_it(
    named: str, told: str, more: tuple[str, ...], config: Path, home: Path
) -> None:
    config.write_text(FILE + "aliases: {mine: other}\n")

    done = run_emberd("add", named, "--yes", *more, home=home)

    model = told.rpartition(" ")[2].rstrip(".") if ": it is" in told else named
    assert done.returncode == 1
    assert f"error: {told}\n" in done.stderr.decode()
    assert f"`emberd pull {model}`" in " ".join(done.stderr.decode().split())


def test_a_folder_that_is_called_like_a_model_is_a_folder(
    config: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described(tmp_path / "here" / "minilm")
    monkeypatch.chdir(tmp_path / "here")

    done = run_emberd("add", "minilm", "--name", "new", "--json", home=home)

    assert json.loads(done.stdout)["read_from"] == str(tmp_path / "here" / "minilm")


def test_the_default_is_not_changed_where_nobody_reads_what_that_means(
    config: Path, folder: Path
) -> None:
    done = run_emberd("add", str(folder), "--yes", "--json", "--default", home=config.parent)

    assert done.returncode == 1
    assert "emberd use NAME --yes --json" in json.loads(done.stderr)["hint"]
    assert config.read_text() == FILE


def test_another_revision_is_read_and_pinned(config: Path, hub: Hub, emberd: Emberd) -> None:
    hub.publish(NEWER, hub.files)

    now = json.loads(emberd("add", "me/Tiny-v1", "--json").stdout)
    before = json.loads(emberd("add", "me/Tiny-v1", "--json", "--revision", "v1").stdout)
    gone = emberd("add", "me/Tiny-v1", "--revision", "v9")
    odd = emberd("add", "me/Tiny-v1", "--revision", "../v1")

    assert now["entry"]["sources"][0]["revision"] == NEWER
    assert before["entry"]["sources"][0]["revision"] == COMMIT
    assert b"hf:me/Tiny-v1@v9: the repository has no revision 'v9'." in gone.stderr
    assert b"is not a branch, tag or commit" in odd.stderr


def test_what_was_downloaded_before_is_read_without_the_hub(emberd: Emberd) -> None:
    emberd("add", "me/Tiny-v1", "--yes")

    offline = emberd("add", "me/Tiny-v1", "--name", "again", "--yes", HF_HUB_OFFLINE="1")
    pinned = emberd("add", "me/Tiny-v1", "--name", "more", "--revision", COMMIT, HF_HUB_OFFLINE="1")

    assert b"hf:me/Tiny-v1: HF_HUB_OFFLINE forbids asking the Hub." in offline.stderr
    assert b"Note: This is what was downloaded before: HF_HUB_OFFLINE forbids" in pinned.stdout
    assert f"revision: {COMMIT}".encode() in pinned.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model.safetensors": None, "pytorch_model.bin": b"x"},
            "hf:me/Tiny-v1: the repository holds no weights that emberd can read.",
        ),
        ({"tokenizer.json": None, "vocab.txt": b"a"}, "has no tokenizer.json"),
        (
            {"config.json": b'{"model_type": "odd", "auto_map": {"AutoModel": "x.Odd"}}'},
            "asks for Python code that comes with the model (x.Odd)",
        ),
        (
            {"config.json": b'{"model_type": "t5gemma"}'},
            "no backend here runs the architecture 't5gemma'.",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_downloaded_or_written(
    config: Path, hub: Hub, emberd: Emberd, change: dict[str, bytes | None], said: str
) -> None:
    files = {**hub.files["me/Tiny-v1"], **change}
    hub.publish(
        NEWER, {"me/Tiny-v1": {name: each for name, each in files.items() if each is not None}}
    )

    done = emberd("add", "me/Tiny-v1", "--yes")

    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert b"\nhint: " in done.stderr
    assert "model.safetensors" not in hub.downloaded()
    assert config.read_text() == FILE


def test_neither_a_folder_nor_a_repository(home: Path, emberd: Emberd) -> None:
    nothing = emberd("add", "tiny")
    gone = emberd("add", "me/gone")
    folder = emberd("add", "./gone")

    assert b"'tiny' is neither a folder here nor of the form OWNER/NAME." in nothing.stderr
    assert b"hf:me/gone: the Hub has no repository of that name" in gone.stderr
    assert b"gone does not exist." in folder.stderr


def test_a_download_that_fails_leaves_the_entry_and_says_so(
    config: Path, hub: Hub, emberd: Emberd
) -> None:
    hub.answer_instead = lambda _method, path: (
        Answer(403) if path.endswith("model.safetensors") else None
    )

    failed = emberd("add", "me/Tiny-v1", "--yes")
    hub.answer_instead = lambda _method, _path: None
    pulled = emberd("pull", "tiny-v1")

    assert failed.returncode == 1
    assert f"tiny-v1 is in {config}, but: The files of tiny-v1" in failed.stderr.decode()
    assert b"emberd pull tiny-v1" in failed.stderr
    assert pulled.returncode == 0, pulled.stderr


def test_a_file_that_cannot_be_edited_is_left_alone_and_the_entry_shown(
    config: Path, folder: Path
) -> None:
    config.write_text("limits: {}\n...\n")

    done = run_emberd("add", str(folder), "--yes", home=config.parent)

    assert done.returncode == 1
    assert b"cannot edit a file laid out like" in done.stderr
    assert b"Put this in it yourself" in done.stderr
    assert b"models:\n  tiny-v1:\n" in done.stderr
    assert config.read_text() == "limits: {}\n...\n"
