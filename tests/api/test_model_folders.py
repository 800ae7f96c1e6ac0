"""A server with models whose folders have settings of their own: what it does and says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emberd.backends.faster import faster_compute
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockFile
from tests.folders import BERT, CASED, NO_CLASS, POOLING, TOKENIZER, Change, Folder, rewrite
from tests.serving import Server, run_emberd, wait_for
from tests.verify.support import Report, copy_minilm

DESCRIBED = "config_sentence_transformers.json"
PROMPTS = {"prompts": {"query": "Query: ", "passage": "Text: "}}
KEYS = "dimensions: 64, pooling: mean, compute: f32"
CONFIG = f"""
models:
  cut: {{sources: [{{path: cut}}], dimensions: 384, pooling: mean, compute: f32}}
  wider: {{sources: [{{path: narrow}}], {KEYS}, max_tokens: 32}}
  prompted: {{sources: [{{path: prompted}}], {KEYS}}}
  asks: {{sources: [{{path: prompted}}], {KEYS}, prompts: {{query: "Query: ", document: "Text: "}}}}
  odd: {{sources: [{{path: odd}}], {KEYS}}}
  unsaid: {{sources: [{{path: narrow}}], dimensions: 64, pooling: mean}}
  vocabulary: {{sources: [{{path: vocabulary}}], {KEYS}}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose models are in its home."""
    home = tmp_path_factory.mktemp("folders")
    cut = copy_minilm(home / "cut")
    (cut / BERT).write_text(json.dumps({"max_seq_length": 128, "do_lower_case": False}))
    Folder(files={BERT: {"max_seq_length": 16}}).write(home / "narrow")
    Folder(files={DESCRIBED: PROMPTS}).write(home / "prompted")
    Folder(files={BERT: None, TOKENIZER: {"model_max_length": "sixteen"}}).write(home / "odd")
    Folder().write(home / "vocabulary")
    (home / "vocabulary" / "tokenizer.json").rename(home / "vocabulary" / "vocab.txt")
    with Server(home, config=CONFIG) as running:
        yield running


@pytest.mark.slow
def test_a_long_text_is_cut_where_the_folder_says(server: Server) -> None:
    answer = server.embed("word " * 400, "word", model="cut")

    assert answer["truncated"] == [0]
    assert answer["usage"]["tokens"] == 128 + 3
    assert server.row("cut")["max_tokens"] == 128
    assert server.row("cut")["notes"] == []


@pytest.mark.slow
def test_an_entry_that_states_another_limit_wins_and_the_first_load_says_so(server: Server) -> None:
    for _ in range(2):
        assert server.embed("a " * 100, model="wider")["usage"]["tokens"] == 32
        server.http.post("/unload", json={"model": "wider"})

    said = (
        "wider cuts texts at 32 tokens, as its entry states; sentence-transformers cuts them at 16"
    )
    assert server.log().count(said) == 1
    (note,) = server.row("wider")["notes"]
    assert note.startswith(said)
    assert note.endswith("write under models.wider: max_tokens: 16")


def test_a_built_in_entry_says_nothing_of_it_at_a_load(server: Server) -> None:
    server.embed("x", model="minilm")  # 512, and its folder says 256

    assert server.row("minilm")["notes"] == []
    assert "minilm cuts texts" not in server.log()


@pytest.mark.slow
def test_prompts_of_the_folder_are_told_with_the_line_to_write(server: Server) -> None:
    server.embed("x", model="prompted")
    server.embed("x", model="asks")

    (note,) = server.row("prompted")["notes"]
    assert note.endswith('models.prompted: prompts: {query: "Query: ", document: "Text: "}')
    assert note in server.log().replace('\\"', '"')
    assert server.row("asks")["notes"] == []


def test_a_faster_compute_is_told_with_the_line_to_write(server: Server) -> None:
    narrow = Source(path=str(server.home / "narrow"))
    spec = ModelSpec(name="unsaid", sources=(narrow,), dimensions=64, pooling="mean")
    faster = faster_compute(spec)  # None on a processor without bf16
    told = [faster.told("unsaid")] if faster else []
    server.embed("x", model="unsaid")
    server.embed("x", model="asks")

    assert server.row("unsaid")["notes"] == told
    assert server.row("asks")["notes"] == []
    assert [note for note in told if note not in server.log()] == []
    listed = server.run("list").stdout.decode()
    assert [note for note in told if note not in listed] == []
    assert json.loads(server.run("list", "--json").stdout)["notes"] == told


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/embed", {"texts": ["x"]}),
        ("/v1/embeddings", {"input": ["x"]}),
        ("/embed", {"inputs": ["x"]}),
    ],
)
def test_who_asks_for_a_prompt_is_told_which_one_came(
    server: Server, path: str, body: dict[str, Any]
) -> None:
    def told(model: str, kind: str | None) -> str | None:
        asked = {"prompt_name" if "inputs" in body else "input_type": kind} if kind else {}
        answer = server.http.post(path, json={**body, **asked, "model": model})
        assert answer.status_code == 200, answer.text
        return answer.headers.get("X-Emberd-Prompt")

    if "inputs" not in body:  # that dialect names no model
        assert told("asks", "query") == "query"
        assert told("asks", "document") == "document"
        assert told("asks", None) is None
    assert told("minilm", "query") == "none"
    assert told("minilm", "document") == "none"
    assert told("minilm", None) is None


def test_a_query_without_a_prompt_is_answered_as_ever_and_said_once(server: Server) -> None:
    asked = [server.embed("tea", model="prompted", input_type="query") for _ in range(3)]

    assert asked[0] == server.embed("tea", model="prompted")
    assert server.log().count("prompted has no query prompt") == 1


@pytest.mark.parametrize(
    ("model", "named", "cure"),
    [
        ("odd", "tokenizer_config.json: model_max_length is 'sixteen'", "remove the key"),
        ("vocabulary", "has no tokenizer.json, only vocab.txt", "AutoTokenizer.from_pretrained"),
    ],
)
def test_an_odd_folder_fails_at_load_with_file_and_cure(
    server: Server, model: str, named: str, cure: str
) -> None:
    answer = server.http.post("/load", json={"model": model})

    assert answer.status_code == 500
    assert answer.json()["code"] == "model_load_failed"
    assert named in answer.json()["detail"]
    assert cure in answer.json()["hint"]


def test_config_check_says_what_folders_have_otherwise(home: Path) -> None:
    home.mkdir()
    Folder(files={BERT: {"max_seq_length": 16}}).write(home / "narrow")
    Folder(files={DESCRIBED: PROMPTS}).write(home / "prompted")
    (home / "config.yaml").write_text("".join(CONFIG.splitlines(keepends=True)[:2]))
    lines = [line for line in CONFIG.splitlines() if "wider" in line or "prompted" in line]
    (home / "config.yaml").write_text("\n".join(["models:", *lines, "  minilm: {pinned: true}"]))

    done = run_emberd("config", "check", home=home)

    said = done.stdout.decode()
    assert done.returncode == 0
    assert "write under models.wider: max_tokens: 16\n" in said
    assert 'models.prompted: prompts: {query: "Query: ", document: "Text: "}\n' in said
    assert "asks" not in said.replace("emberd puts a prompt only where `input_type` asks", "")
    assert "minilm cuts" not in said


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("", "The folder {folder} does not exist"),
        ("config.json", "{folder} has no config.json"),
        ("tokenizer.json", "{folder} has no tokenizer.json"),
        ("model.safetensors", "{folder} has no model.safetensors"),
    ],
)
def test_config_check_says_which_file_the_only_folder_lacks(
    gone: str, named: str, home: Path
) -> None:
    home.mkdir()
    folder = home / "mine"
    if gone:
        Folder().write(folder)
        (folder / gone).unlink()
    (home / "config.yaml").write_text(f"models:\n  mine: {{sources: [{{path: mine}}], {KEYS}}}\n")

    done = run_emberd("config", "check", home=home)

    assert done.returncode == 1
    assert "config.yaml:2: models.mine.sources: " in done.stderr.decode().replace("\n", " ")
    assert named.format(folder=folder) in " ".join(done.stderr.decode().split())


def test_config_check_says_what_a_load_would_refuse(home: Path) -> None:
    home.mkdir()
    Folder(files={POOLING: {"pooling_mode": ["cls", "mean"]}}).write(home / "mine")
    (home / "config.yaml").write_text(f"models:\n  mine: {{sources: [{{path: mine}}], {KEYS}}}\n")

    done = run_emberd("config", "check", home=home)

    assert done.returncode == 1
    assert "says cls + mean" in " ".join(done.stderr.decode().split())


@pytest.mark.slow
def test_verify_notes_the_difference_and_passes(home: Path) -> None:
    home.mkdir()
    Folder(files={BERT: {"max_seq_length": 16}}).write(home / "narrow")
    line = next(line for line in CONFIG.splitlines() if "wider" in line)
    (home / "config.yaml").write_text(f"models:\n{line}\n")

    report = Report("wider", "minilm", home=home)

    row = report.row("wider", "folder")
    assert row["verdict"] == "note"
    assert "at 16, as sentence_bert_config.json (max_seq_length) says" in row["detail"]
    assert "models.wider: max_tokens: 16" in row["advice"]
    assert report.verdict("minilm", "folder") == "note"  # 512, and its folder says 256
    assert "folder" not in report.failed("wider")
    assert report.failed("minilm") == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "cut"),
    [({"max_seq_length": 38}, 38), ({"do_lower_case": True}, 40)],
    ids=["where texts are cut", "lower case"],
)
def test_an_upgrade_that_hears_the_folder_is_a_changed_space(
    said: Change, cut: int, home: Path
) -> None:
    """Start with a `lock.json` written by a version that did not read this file."""
    folder = Folder(files={BERT: None, TOKENIZER: NO_CLASS}, normalizer=CASED).write(home / "mine")
    (home / "config.yaml").write_text(f"models:\n  mine: {{sources: [{{path: mine}}], {KEYS}}}\n")
    with Server(home) as before:
        before.embed("x", model="mine")
        old = wait_for(lambda: LockFile(home / "state").read().get("mine"))
    rewrite(folder / BERT, said)  # which was there, and nobody read it
    file = home / "state" / "lock.json"
    content = json.loads(file.read_bytes())
    limit = content["models"]["mine"].pop("options")["max_tokens"]
    content["models"]["mine"]["max_tokens"] = limit  # all that was written then
    file.write_text(json.dumps(content))

    with Server(home) as after:
        answer = after.embed("a " * 100, model="mine")
        (warned,) = wait_for(lambda: after.http.get("/health").json()["warnings"])
        refused = after.http.post(
            "/embed", json={"texts": ["x"], "model": "mine", "fingerprint": old.fingerprint}
        )

    assert answer["usage"]["tokens"] == cut
    assert answer["fingerprint"] != old.fingerprint
    assert warned["code"] == "space_changed"
    assert str(old.fingerprint) in warned["message"]
    assert "emberd verify --accept mine" in warned["hint"]
    assert refused.status_code == 409
    accepted = run_emberd("verify", "--accept", "mine", home=home)
    assert accepted.returncode == 0
    now = LockFile(home / "state").read()["mine"]
    assert (now.changed_to, now.fingerprint) == (None, answer["fingerprint"])
