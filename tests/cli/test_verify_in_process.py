"""`emberd verify`: which models are checked, and what is said, with checks that are quick."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from emberd.config.load import Config
from emberd.registry.spec import ModelSpec
from emberd.verify import acceptance, verification
from emberd.verify.acceptance import Accepted
from emberd.verify.finding import Finding
from tests import model_folder
from tests.in_process import run_here


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one model, and another whose files are not here."""
    folder = model_folder.write(tmp_path / "model")
    (tmp_path / "config.yaml").write_text(
        f"models:\n  mine: {{sources: [{{path: {folder}}}], dimensions: 8, pooling: mean}}\n"
        "  away: {sources: [{hf: me/away}], dimensions: 8, pooling: mean}\n"
    )
    return tmp_path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were checked; `mine` alone fails."""
    names: list[str] = []

    def verify(_config: Config, spec: ModelSpec, *, full: bool) -> Iterable[Finding]:
        del full
        names.append(spec.name)
        if spec.name == "mine":
            yield Finding("files", "failed", "config.json has changed", "Pull it again.")
        else:
            yield Finding("files", "ok", "as recorded")

    monkeypatch.setattr(verification, "verify", verify)
    return names


def test_without_a_name_every_model_that_is_here_is_checked(home: Path, checked: list[str]) -> None:
    done = run_here(home, "verify", "--json")

    rows = json.loads(done.out)
    assert (done.code, rows["ok"]) == (1, False)
    assert "mine" in checked
    assert "away" not in checked
    failed = [row for row in rows["checks"] if row["verdict"] == "failed"]
    assert [row["model"] for row in failed] == ["mine"]


def test_a_person_sees_what_is_checked_and_what_to_do(home: Path, checked: list[str]) -> None:
    done = run_here(home, "verify", "mine", "away", typed="")

    assert (done.code, checked) == (1, ["mine", "away"])
    assert "Verifying mine" in done.out
    assert "mine, files: Pull it again." in done.out


@pytest.mark.parametrize(
    ("accepted", "said"),
    [
        (None, "has not changed"),
        (Accepted("f1", None), "vectors are the same as before, in space f1"),
        (Accepted("f2", "f1"), "space f1 must be embedded again"),
    ],
)
def test_what_was_accepted_is_said(
    accepted: Accepted | None, said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acceptance, "accept", lambda _config, _spec: accepted)

    shown = run_here(home, "verify", "--accept", "mine").out.replace("\n", " ")
    row = json.loads(run_here(home, "verify", "--accept", "mine", "--json").out)

    assert said in shown
    assert row["model"] == "mine"
    assert row["accepted"] == (
        {"fingerprint": accepted.fingerprint, "left": accepted.left} if accepted else None
    )


def test_accepting_is_not_checking(home: Path, checked: list[str]) -> None:
    done = run_here(home, "verify", "mine", "--accept", "mine")

    assert (done.code, checked) == (2, [])
