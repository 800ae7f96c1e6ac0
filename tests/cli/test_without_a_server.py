"""The command line without a server: showing, configuring, and saying what is wrong."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from emberd import __version__
from emberd.config.load import load_config
from tests.serving import clean_environ, run_emberd

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
BUILT_IN = len(list(load_config(environ={"EMBERD_HOME": "/nowhere"}).catalog))
STRANGE = """\
default: '7'
aliases: {'no': 'minilm:query', 'a: b # c': mpnet, '0x11': 'null:document'}
server: {host: '::1', port: 0, allowed_hosts: [me.local, 'a: b # c'], allowed_origins: ['http://a']}
limits:
  idle_unload: 90.5s
  max_loaded: 1
  memory_budget: 1234567891
  max_texts: 7
  max_body: 3MiB
  max_queued_texts: 8
  max_queued_bytes: 123456789
  request_timeout: never
models:
  minilm:
    max_tokens: null
    aliases: []
    prompts: {query: "a\\n b: #'\\" \\u2028 🔥 ", document: ' '}
  mpnet: {idle_unload: 0.25, matryoshka: [256, 128], pinned: true}
  '7':
    sources: [{path: models/7}, {hf: a/b, revision: 'no'}, {package: null, path: ~/x}]
    dimensions: 8
    pooling: last
    normalize: false
    idle_unload: never
    backend: 'on'
  1e3: {sources: [{package: p}], dimensions: 1, pooling: cls, aliases: ['null', '0x10']}
"""


@pytest.fixture
def run(home: Path) -> Run:
    """Run the command line with a home of its own."""

    def run_here(*arguments: str, **environ: str) -> "subprocess.CompletedProcess[bytes]":
        return run_emberd(*arguments, home=home, environ={**nothing_set(home), **environ})

    return run_here


def nothing_set(home: Path) -> dict[str, str]:
    """Return an environment that sets nothing, not even what tests with servers need."""
    return {
        key: value
        for key, value in clean_environ(home).items()
        if not key.startswith("EMBERD_LIMITS_")
    }


@pytest.fixture
def config(home: Path) -> Path:
    """Where the config file is; it does not exist yet."""
    home.mkdir()
    return home / "config.yaml"


def said(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return what a successful command printed."""
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def complaint(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return a command's errors on stderr; stdout is only for what was asked for."""
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Traceback" not in done.stderr
    return done.stderr.decode()


def test_it_says_its_version(run: Run) -> None:
    assert said(run("--version")) == f"emberd {__version__}\n"


def test_it_is_installed_as_a_command(home: Path) -> None:
    script = Path(sys.executable).with_name("emberd")

    done = subprocess.run([script, "--version"], capture_output=True, env=clean_environ(home))

    assert said(done) == f"emberd {__version__}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_command(run: Run, flag: str) -> None:
    shown = said(run(flag))

    for command in (
        "serve",
        "pull",
        "remove",
        "list",
        "open",
        "ps",
        "embed",
        "load",
        "unload",
        "verify",
        "doctor",
        "service",
        "reload",
        "use",
        "config",
    ):
        assert command in shown


def test_the_version_costs_no_library(home: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "emberd.cli.main", "--version"],
        capture_output=True,
        check=True,
        env=clean_environ(home),
        text=True,
    )

    imported = {line.rpartition("|")[2].strip() for line in child.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {
        "fastapi", "numpy", "rich", "huggingface_hub", "pydantic", "yaml", "httpx2", "uvicorn",
        "tokenizers", "psutil",
    }  # fmt: skip


def test_config_path_says_where_the_file_would_be(run: Run, home: Path) -> None:
    assert said(run("config", "path")) == f"{home / 'config.yaml'}\n"
    assert not home.exists()


def test_config_path_follows_the_flag(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"

    assert said(run("--config", str(file), "config", "path")) == f"{file}\n"


def test_config_check_counts_the_models(run: Run, config: Path) -> None:
    config.write_text("models:\n  mine: {sources: [{hf: a/b}], dimensions: 8, pooling: cls}\n")

    count = BUILT_IN + 1
    shown = said(run("config", "check"))
    assert shown.startswith(f"{config}: ")
    assert f" {count} models" in shown


def test_config_check_says_that_there_is_no_file(run: Run, home: Path) -> None:
    shown = said(run("config", "check"))

    assert shown.startswith(f"{home / 'config.yaml'} (does not exist")


def test_config_init_writes_a_file_that_changes_nothing(run: Run, home: Path) -> None:
    said(run("config", "init"))

    written = load_config(environ={"EMBERD_HOME": str(home)})
    assert written.settings == load_config(environ={"EMBERD_HOME": "/nowhere"}).settings
    assert said(run("config", "init", "--print")) == (home / "config.yaml").read_text()


def test_the_examples_in_the_first_config_file_work(run: Run, config: Path) -> None:
    starter = said(run("config", "init", "--print"))
    config.write_text(
        re.sub(r"^# (aliases:|models:|stores:|  )", r"\1", starter, flags=re.MULTILINE)
    )

    written = load_config(environ={"EMBERD_HOME": str(config.parent)})
    catalog = written.catalog
    assert written.settings.stores["cmem"].kind == "cmem"
    assert catalog.get("bge-small").idle_unload == 3600
    assert catalog.find("text-embedding-3-small").label == "bge-small:document"
    assert [source.hf for source in catalog.get("my-model").sources] == [None, "owner/name"]


def test_config_init_never_overwrites(run: Run, config: Path) -> None:
    config.write_text("default: mpnet\n")

    assert str(config) in complaint(run("config", "init"))
    assert config.read_text() == "default: mpnet\n"


def test_config_show_says_where_each_setting_comes_from(run: Run, config: Path) -> None:
    config.write_text("limits:\n  max_texts: 7\nmodels:\n  mpnet: {pinned: true}\n")

    lines = said(run("config", "show", "--all", EMBERD_LOG_BACKUPS="7")).splitlines()

    shown = {
        line.split("  # ")[0].strip(): line.split("  # ")[1] for line in lines if "  # " in line
    }
    assert lines[0] == f"# {config}"
    assert shown["max_texts: 7"] == f"{config}:2"
    assert shown["backups: 7"] == "$EMBERD_LOG_BACKUPS"
    assert shown["max_loaded: 3"] == "default"
    assert shown["mpnet:"] == f"{config}:4"
    assert shown["minilm:"] == "built in"


def test_config_show_leaves_out_what_has_its_default(run: Run, config: Path) -> None:
    config.write_text(
        "limits:\n  max_texts: 7\nmodels:\n  mpnet: {pinned: true}\n  bge-small: {}\n"
    )

    assert [
        line.split("  # ")[0].rstrip() for line in said(run("config", "show")).splitlines()
    ] == [
        f"# {config}",
        "limits:",
        "  max_texts: 7",
        "models:",
        "  bge-small: {}",
        "  mpnet:",
        "    pinned: true",
        "# all other settings have their defaults: `emberd config show --all`",
    ]


def test_config_show_gives_a_key_one_line_whatever_it_holds(run: Run, config: Path) -> None:
    config.write_text('models: {minilm: {prompts: {query: "one\\ntwo "}}}')

    lines = [line.strip() for line in said(run("config", "show")).splitlines()]

    assert 'prompts: {"query": "one\\ntwo "}' in lines


def test_config_show_as_json_has_everything_and_its_origins(run: Run, config: Path) -> None:
    config.write_text("default: mpnet\nlimits: {idle_unload: never}\n")

    shown = json.loads(said(run("config", "show", "--all", "--json", EMBERD_LOG_BACKUPS="7")))

    assert (shown["default"], shown["limits"]["idle_unload"]) == ("mpnet", "never")
    assert shown["limits"]["memory_budget"] == "4GiB"
    assert shown["models"]["minilm"]["dimensions"] == 384
    assert shown["origins"]["default"] == f"{config}:1"
    assert shown["origins"]["log.backups"] == "$EMBERD_LOG_BACKUPS"
    assert shown["origins"]["models.minilm"] == "built in"


@pytest.mark.parametrize("text", ["", STRANGE], ids=["defaults", "everything"])
@pytest.mark.parametrize(
    "flags",
    [[], ["--json"], ["--all"], ["--all", "--json"]],
    ids=["yaml", "json", "all, yaml", "all, json"],
)
def test_what_config_show_prints_is_a_config_that_means_the_same(
    home: Path, config: Path, text: str, flags: list[str]
) -> None:
    config.write_text(text)
    before = load_config(environ={"EMBERD_HOME": str(home)})

    shown = said(run_emberd("config", "show", *flags, home=home, environ=nothing_set(home)))

    if "--json" in flags:
        without_origins = json.loads(shown)
        del without_origins["origins"]
        shown = json.dumps(without_origins)
    (again := home / "again.yaml").write_text(shown)
    after = load_config(config=again, environ={})
    assert after.settings == before.settings
    assert list(after.catalog) == list(before.catalog)


def test_the_strange_config_sets_what_is_hard_to_show(config: Path) -> None:
    config.write_text(STRANGE)

    strange = load_config(environ={"EMBERD_HOME": str(config.parent)})

    assert strange.settings.limits.memory_budget == 1234567891
    assert strange.settings.limits.request_timeout == math.inf
    assert strange.catalog.get("minilm").prompts["query"] == "a\n b: #'\" \u2028 🔥 "
    assert strange.catalog.get("7").sources[1].revision == "no"


def test_list_shows_every_model_and_what_is_here(run: Run) -> None:
    rows = {row["name"]: row for row in json.loads(said(run("list", "--json")))["models"]}

    assert len(rows) == BUILT_IN
    assert [name for name in rows if rows[name]["default"]] == ["minilm"]
    assert rows["minilm"]["pulled"]  # the installed package has it
    assert not rows["mpnet"]["pulled"]
    assert rows["mpnet"]["sources"] == ["hf:sentence-transformers/all-mpnet-base-v2"]
    assert rows["mpnet"]["fingerprint"] is None


def test_list_for_people_has_a_line_for_every_model(run: Run) -> None:
    lines = said(run("list")).splitlines()

    assert lines[0].split()[:4] == ["model", "dimensions", "pooling", "precision"]
    assert lines[1].startswith("minilm (default)")
    assert len(lines) == 1 + BUILT_IN


def test_nothing_is_alive(run: Run) -> None:
    assert json.loads(said(run("ps", "--json"))) == {"models": []}
    assert said(run("ps")) == "No emberd server is running; start one with `emberd serve`.\n"


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("option", [["--config", "FILE"], ["--config=FILE"]])
def test_the_config_file_may_be_named_anywhere(
    run: Run, tmp_path: Path, place: int, option: list[str]
) -> None:
    (file := tmp_path / "mine.yaml").write_text("default: mpnet")
    arguments = ["config", "show", "--json"]
    arguments[place:place] = [word.replace("FILE", str(file)) for word in option]

    assert json.loads(said(run(*arguments)))["default"] == "mpnet"


def test_config_without_a_file_behind_it_is_wrong_use(run: Run) -> None:
    assert run("config", "show", "--config").returncode == 2


def test_config_check_knows_the_installed_backends(run: Run, config: Path) -> None:
    config.write_text("models:\n  mpnet:\n    backend: opnvino\n")

    shown = complaint(run("config", "check"))
    assert shown.startswith(f"error: {config}:3: models.mpnet.backend: no backend 'opnvino' ")
    assert "auto, mlx, onnx, openvino" in shown


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            "kind: cmen",
            "stores.notes.kind: no store kind 'cmen' is installed.\n"
            "hint: Installed: cmem, llm, sqlite-vec, ",
        ),
        (
            "model: minlm",
            "stores.notes.model: No model is called 'minlm'.\nhint: Did you mean minilm",
        ),
    ],
)
def test_config_check_knows_the_kinds_and_models_of_stores(
    run: Run, config: Path, wrong: str, words: str
) -> None:
    config.write_text(f"stores:\n  notes:\n    path: notes\n    {wrong}\n")

    assert complaint(run("config", "check")).startswith(f"error: {config}:4: {words}")


def test_config_check_asks_the_files_how_long_a_text_may_be(run: Run, config: Path) -> None:
    config.write_text("models:\n  minilm:\n    max_tokens: 513\n")

    shown = complaint(run("config", "check"))

    assert f"{config}:3: models.minilm.max_tokens: 513 is more than the 512 that" in shown


@pytest.mark.parametrize(
    "command", [["load"], ["unload"], ["reload"], ["open"], ["config", "diff"]]
)
def test_what_needs_a_server_says_how_to_start_one(run: Run, command: list[str]) -> None:
    assert complaint(run(*command)) == (
        "error: No emberd server is running.\nhint: Start one with `emberd serve`.\n"
    )


@pytest.mark.parametrize("command", ["pull", "verify"])
def test_a_misspelt_model_is_met_with_the_nearest_name(run: Run, command: str) -> None:
    shown = complaint(run(command, "minlm"))

    assert shown.startswith("error: No model is called 'minlm'.\nhint: Did you mean minilm")


@pytest.mark.parametrize(
    "command", [["config", "check"], ["config", "show"], ["list"], ["ps"], ["load"]]
)
def test_a_broken_config_is_met_with_file_and_line(
    run: Run, config: Path, command: list[str]
) -> None:
    config.write_text("limits:\n  max_loded: 2\n")

    assert complaint(run(*command)) == (
        f"error: {config}:2: limits.max_loded: there is no such setting.\n"
        "hint: Did you mean max_loaded?\n"
    )


def test_a_config_file_that_was_named_and_is_not_there_is_an_error(
    run: Run, tmp_path: Path
) -> None:
    shown = complaint(run("--config", str(tmp_path / "none.yaml"), "list"))

    assert str(tmp_path / "none.yaml") in shown


def test_a_variable_that_means_nothing_is_a_warning(run: Run) -> None:
    done = run("ps", "--json", EMBERD_SERVER_PROT="9000")

    assert (done.returncode, json.loads(done.stdout)) == (0, {"models": []})
    assert b"Did you mean $EMBERD_SERVER_PORT?" in done.stderr


def test_an_argument_that_is_no_text_is_refused(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "emberd.cli.main", "embed", b"\xff"],
        capture_output=True,
        env=clean_environ(home),
        timeout=30,
    )

    assert done.returncode == 1
    assert b"Text 0 is not UTF-8" in done.stderr
