"""What holds for every kind of store: the conformance check, and kills in each phase of a run."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emberd.config.paths import is_url
from emberd.stores.base import Store
from emberd.stores.conformance import check_store
from emberd.stores.plugins import kinds, open_store
from tests.migrate.kind_kills import PHASES
from tests.migrate.kinds.base import Subject, subjects

EACH = pytest.mark.parametrize("kind", [*subjects()], ids=lambda kind: kind.name)
ROWS, DIMENSIONS = 30, 16
WITHOUT_SUBJECT = {"cmem"}  # a layout of sqlite-vec; tests/migrate/kills.py kills it


def opened(subject: Subject) -> Store:
    path = subject.entry["path"]
    place = path if is_url(path) else Path(path)
    options = subject.entry.get("options", {})
    return open_store(place, kind=subject.entry["kind"], options=options)


def test_no_kind_is_left_out() -> None:
    named = {subject.name for subject in subjects()}

    assert set(kinds()) - WITHOUT_SUBJECT <= named


@EACH
def test_it_meets_the_conformance_check(
    kind: type[Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emberd.stores.sqlite.database.PATIENCE_S", 0.2)
    folder = tmp_path / "engine"
    folder.mkdir()
    vectors = np.random.default_rng(5).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with kind(folder) as subject:
        keys = [subject.key(number) for number in range(ROWS)]
        texts = [f"the text of row {number}" for number in range(ROWS)]
        subject.create(list(zip(keys, texts, vectors, strict=True)))

        check_store(lambda: opened(subject), tmp_path / "scratch")


@pytest.mark.slow
@EACH
def test_it_survives_kills_in_each_phase(kind: type[Subject], tmp_path: Path) -> None:
    """In a process of its own, as commands are forked, which engines used before would not bear."""
    out = tmp_path / "seen.json"
    command = [sys.executable, "-m", "tests.migrate.kind_kills", kind.name, "--out", str(out)]
    done = subprocess.run(
        [*command, "--kills", "6", "--seed", "24"], capture_output=True, text=True, timeout=600
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    seen = Counter(json.loads(out.read_text()))
    assert all(seen[f"killed in {phase}"] for phase in PHASES)
    assert seen["rows written meanwhile"] > 0
    assert seen["read: old"] > 0
    assert seen["read: new"] > 0
