"""`emberd embed-files`, with a real model: what people and programs see, and a kill midway."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.serving import Server, clean_environ, run_emberd, wait_for

MANY, PART = 20_000, 250  # rows in all (some seconds of work), and in each file
WORDS = ("the", "kettle", "is", "on", "ferry", "leaves", "at", "noon")


def texts(count: int) -> list[str]:
    return [" ".join(WORDS[(at >> bit) % 8] for bit in (0, 3, 6, 9)) for at in range(count)]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "notes.csv"
    file.write_text("id,body\n" + "".join(f"{at},{text}\n" for at, text in enumerate(texts(20))))
    return file


def test_vectors_are_those_of_the_server(small: Server, notes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    done = small.run("embed-files", str(notes), "--text", "body", "--out", str(out))

    assert done.returncode == 0, done.stderr
    answer = small.embed(*texts(20))
    assert done.stdout.decode() == (
        f"{out} has 20 rows in 1 files, with vectors of tiny (64 dimensions, fingerprint"
        f" {answer['fingerprint']}) in the column 'embedding'.\n"
    )
    table = parquet.read_table(out)
    assert table.column_names == ["id", "body", "embedding"]
    assert np.allclose(table["embedding"].to_pylist(), answer["embeddings"], atol=1e-6)
    about = json.loads(table.schema.metadata[b"emberd.stamp"])
    assert about["fingerprint"] == answer["fingerprint"]
    columns = ("-o", "vector=embedding", "-o", "text=body")
    checked = small.run("migrate", "check", str(out), *columns, "--json")
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["verdict"] == "compatible"


@pytest.mark.slow
def test_without_a_server_the_vectors_are_the_same(
    small: Server, notes: Path, home: Path, tmp_path: Path
) -> None:
    home.mkdir()
    (home / "config.yaml").write_bytes((small.home / "config.yaml").read_bytes())
    out = tmp_path / "out"

    done = run_emberd("embed-files", str(notes), "--text", "body", "--out", str(out), home=home)

    assert done.returncode == 0, done.stderr
    vectors = parquet.read_table(out)["embedding"].to_pylist()
    assert np.allclose(vectors, small.embed(*texts(20))["embeddings"], atol=1e-6)


def test_programs_get_json_progress_and_counts(small: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the kettle\n\n" + "the kettle is on " * 100)
    command = ("embed-files", str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--json")

    done = small.run(*command, "--progress", "--model", "other", "--column", "vector")

    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["model"], row["column"], row["dimensions"]) == ("other", "vector", 64)
    assert (row["rows"], row["without_text"], row["cut"], row["parts"]) == (3, 1, 1, 1)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    steps = [line["progress"] for line in lines if "progress" in line]
    assert steps[-1] == {"what": "embedding out", "done": 3, "total": 3, "unit": "rows"}
    again = small.run(*command, "--model", "tiny", "--column", "vector")
    assert again.returncode == 1
    assert "was begun with model other" in json.loads(again.stderr)["detail"]


def test_a_bad_line_is_named_and_nothing_is_written(small: Server, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "the"}\n{"text": \n')

    done = small.run("embed-files", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out"))

    assert done.returncode == 1
    assert b"a.jsonl, line 2: it is not JSON" in done.stderr
    assert not [*(tmp_path / "out").iterdir()]


def test_without_pyarrow_the_command_says_what_to_install(notes: Path, home: Path) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from emberd.cli.main import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", code, "embed-files", str(notes), "--out", str(home / "out")],
        env=clean_environ(home),
        capture_output=True,
    )

    assert done.returncode == 1
    assert b"emberd[parquet]" in done.stderr


def test_the_page_about_it_is_right(small: Server, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedding-files.md").read_text()
    (command,) = re.findall(r"^emberd (embed-files .*)$", page, re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    parquet.write_table(pa.table({"id": [1, 2], "body": ["the", None]}), tmp_path / "notes.parquet")
    (tmp_path / "more.jsonl").write_text('{"id": 3, "body": "kettle"}\n')
    environ = clean_environ(small.home)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], env=environ, cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    said = run("-m", "emberd", *command.split())

    fingerprint = small.embed("the")["fingerprint"]
    assert fingerprint in said
    assert run("-c", code) == f"(2, 64) tiny {fingerprint} 64\n"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    file = tmp_path / "many.parquet"
    parquet.write_table(pa.table({"id": range(MANY), "text": texts(MANY)}), file)
    return file


@pytest.fixture
def killed(small: Server, many: Path, tmp_path: Path) -> Path:
    """A folder whose command was killed once two parts were there."""
    out = tmp_path / "out"
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "emberd", *command_of(many, out)]
        process = subprocess.Popen(
            command, env=clean_environ(small.home), stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(lambda: len([*out.glob("*.parquet")]) >= 2 or process.poll(), within_s=120)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
    return out


def command_of(file: Path, out: Path) -> tuple[str, ...]:
    return ("embed-files", str(file), "--out", str(out), "--part-rows", f"{PART}", "--json")


def test_after_a_kill_the_same_command_goes_on(small: Server, killed: Path, many: Path) -> None:
    there = {path: path.stat().st_mtime_ns for path in killed.glob("*.parquet")}
    assert 2 <= len(there) < MANY // PART
    assert all(parquet.read_metadata(path).num_rows == PART for path in there)

    done = small.run(*command_of(many, killed))

    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert (row["rows"], row["rows_before"], row["parts"]) == (
        MANY,
        PART * len(there),
        MANY // PART,
    )
    table = parquet.read_table(killed)
    assert table["id"].to_pylist() == list(range(MANY))
    assert table["text"].to_pylist() == texts(MANY)
    assert table["embedding"].null_count == 0
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())
    assert not [*killed.glob(".*")]
