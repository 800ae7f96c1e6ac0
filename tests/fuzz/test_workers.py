"""Damaged model files in a real worker: it says what is wrong, or answers; it never just dies."""

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, BinaryIO, cast

from hypothesis import strategies as st

from emberd import __version__
from emberd.registry.spec import ModelSpec, Source
from emberd.worker import wire
from tests.fuzz.cases import fuzz
from tests.fuzz.talk import SECRET
from tests.fuzz.test_readers import INDEX, MODULES, TINY, Change, changes, content
from tests.serving import clean_environ

DAMAGED = st.one_of(
    st.tuples(st.just("tokenizer.json"), changes(content("tokenizer.json"))),
    st.tuples(st.just("config.json"), changes(content("config.json"))),
    st.tuples(st.just("modules.json"), changes(MODULES)),
    st.tuples(st.just("model.safetensors.index.json"), changes(INDEX)),
)


@fuzz(DAMAGED, one_in=50)
def test_a_worker_with_a_damaged_model(damaged: tuple[str, Change]) -> None:
    name, damage = damaged
    with tempfile.TemporaryDirectory() as home:
        folder = Path(shutil.copytree(TINY, Path(home) / "model"))
        file = folder / name
        file.write_bytes(damage(file.read_bytes() if file.exists() else json.dumps(INDEX).encode()))
        spec = ModelSpec(
            name="mine", sources=(Source(path=str(folder)),), dimensions=64, pooling="mean"
        )
        start = wire.Start(
            version=__version__, spec=asdict(spec), hub=home, cache=f"{home}/cache", lock=None
        )
        embed = wire.Embed(
            id=1, texts=["a text", "", f"€ {SECRET} 漢字"], prompt="", truncate=True,
            dimensions=64, encoding="raw",
        )  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "emberd.worker", "mine"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=clean_environ(Path(home)),
        ) as worker:  # fmt: skip
            assert worker.stdin and worker.stdout and worker.stderr  # pipes
            worker.stdin.write(wire.encode(start))
            worker.stdin.flush()
            told = read_until(worker.stdout, wire.Ready, wire.StartFailed)
            if isinstance(told, wire.Ready):
                worker.stdin.write(wire.encode(embed) + wire.encode(wire.Tokenize(
                    id=2, texts=embed.texts, prompt="")))  # fmt: skip
                worker.stdin.flush()
                told = read_until(worker.stdout, wire.Fragments, wire.Failure)
            worker.stdin.close()
            rest = worker.stdout.read()
            log = worker.stderr.read().decode(errors="replace")
        assert worker.returncode == 0
        assert rest is not None
        assert "Traceback" not in log
        assert SECRET not in log
        if isinstance(told, wire.StartFailed):
            assert told.code in ("model_load_failed", "model_unavailable"), told
            assert len(told.message) < 1100
        elif isinstance(told, wire.Failure):
            assert told.code in ("bad_vector", "internal", "model_load_failed"), told


def read_until(stream: IO[bytes], *kinds: type[wire.Frame]) -> wire.Frame:
    """Return the first frame of these kinds."""
    while received := wire.read(cast("BinaryIO", stream)):
        if isinstance(received.frame, kinds):
            return received.frame
    raise AssertionError("the worker ended without a word")
