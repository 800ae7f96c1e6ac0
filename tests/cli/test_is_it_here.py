"""Whether a model is here: one answer, whichever command is asked."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from tests.serving import Server, clean_environ, run_emberd

CONFIG = """\
default: mine
models:
  mine: {sources: [{package: my-model}], dimensions: 64, pooling: mean}
stores: {}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages that carries a model, as another interpreter has."""
    site = tmp_path / "site"
    tiny_bert(site / "my_model")
    files = [f"my_model/{path.name},," for path in (site / "my_model").iterdir()]
    info = site / "my_model-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-model\nVersion: 1\n")
    (info / "RECORD").write_text("\n".join([*files, "my_model-1.dist-info/METADATA,,"]))
    return site


@pytest.fixture
def elsewhere(home: Path, site: Path) -> Path:
    """A home whose model was used by an interpreter that has its package; ours has not."""
    home.mkdir()
    (home / "config.yaml").write_text(CONFIG)
    environ = clean_environ(home) | {"PYTHONPATH": str(site)}
    used = run_emberd("embed", "a", home=home, environ=environ)
    assert used.returncode == 0, used.stderr
    return home


def run(home: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return run_emberd(*arguments, home=home)


def is_here(home: Path) -> Iterator[tuple[str, bool]]:
    """Ask every command that says whether the model is here."""
    listed = json.loads(run(home, "list", "--json").stdout)["models"]
    yield "list", next(row["pulled"] for row in listed if row["name"] == "mine")
    checks = json.loads(run(home, "doctor", "--json").stdout)["checks"]
    doctor = {row["check"]: row["verdict"] for row in checks}
    yield "doctor", doctor["model"] == "ok"
    yield "doctor, lock", doctor["lock"] == "ok"
    use = run(home, "use", "mine", "--json", "--dry-run")
    yield "use, to it", json.loads(use.stdout)["is_here"]
    yield "pull", run(home, "pull", "mine", "--json").returncode == 0
    checks = json.loads(run(home, "verify", "mine", "--json").stdout)["checks"]
    yield "verify", "load" in {row["check"] for row in checks if row["verdict"] == "ok"}
    with Server(home) as server:
        yield "/models", server.row("mine")["pulled"]
    yield "embed", run(home, "embed", "a").returncode == 0


@pytest.mark.slow
def test_a_folder_that_the_lock_remembers_is_here_for_every_command(elsewhere: Path) -> None:
    answers = dict(is_here(elsewhere))

    assert answers == dict.fromkeys(answers, True)


@pytest.mark.slow
def test_verify_without_a_name_takes_such_a_model(elsewhere: Path) -> None:
    checks = json.loads(run(elsewhere, "verify", "--json").stdout)["checks"]

    assert "mine" in {row["model"] for row in checks}


def test_config_check_reads_the_limit_of_such_a_model(elsewhere: Path) -> None:
    (elsewhere / "config.yaml").write_text(CONFIG.replace("64,", "64, max_tokens: 4096,"))

    done = run(elsewhere, "config", "check")

    assert done.returncode == 1
    assert b"models.mine.max_tokens: 4096 is more than" in done.stderr


@pytest.mark.slow
def test_a_folder_that_is_gone_is_here_for_no_command(elsewhere: Path, site: Path) -> None:
    shutil.rmtree(site)

    answers = dict(is_here(elsewhere))

    assert answers == dict.fromkeys(answers, False)


@pytest.mark.slow
def test_files_that_moved_from_one_place_to_another_are_not_missed(
    elsewhere: Path, site: Path, tmp_path: Path
) -> None:
    """A package that is installed for our interpreter by now, and not for the old one any more."""
    site.rename(tmp_path / "ours")
    environ = clean_environ(elsewhere) | {"PYTHONPATH": str(tmp_path / "ours")}

    done = run_emberd("doctor", "--json", home=elsewhere, environ=environ)

    verdicts = {row["check"]: row["verdict"] for row in json.loads(done.stdout)["checks"]}
    assert (verdicts["model"], verdicts["lock"]) == ("ok", "ok")


@pytest.mark.slow
def test_a_hub_model_counts_where_the_cache_is_now(elsewhere: Path, site: Path) -> None:
    """A load looks into the Hub's cache of today; the folder remembered may be yesterday's."""
    folder = site / "my_model"
    lock = (elsewhere / "state" / "lock.json").read_text()
    (elsewhere / "state" / "lock.json").write_text(lock.replace("package:my-model", "hf:me/tiny"))
    (elsewhere / "config.yaml").write_text(CONFIG.replace("package: my-model", "hf: me/tiny"))
    assert folder.exists()

    answers = dict(is_here(elsewhere))

    del answers["doctor, lock"]  # which asks only what lies there
    assert answers == dict.fromkeys(answers, False)
