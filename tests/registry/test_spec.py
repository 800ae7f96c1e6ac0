"""ModelSpec: what it refuses, how it travels, and what it does not import."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from emberd.registry.spec import ModelSpec, Source
from tests.serving import clean_environ

SPEC = ModelSpec(
    name="mine",
    sources=(Source(hf="me/mine", revision="v1"), Source(path="/m"), Source(package="p")),
    dimensions=8,
    pooling="cls",
    normalize=False,
    max_tokens=7,
    matryoshka=(4, 2),
    precision="8bit",
    compute="bf16",
    prompts={"query": "q: "},
    backend="mlx",
    idle_unload=60.0,
    pinned=True,
    aliases=("a", "b"),
)


def test_a_spec_survives_the_trip_to_a_worker() -> None:
    assert ModelSpec.from_dict(json.loads(json.dumps(asdict(SPEC)))) == SPEC


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (Source(hf="a/b"), "hf:a/b"),
        (Source(hf="a/b", revision="v1"), "hf:a/b@v1"),
        (Source(path="/m"), "path:/m"),
        (Source(package="p"), "package:p"),
    ],
)
def test_a_source_is_written_as_the_lock_remembers_it(source: Source, written: str) -> None:
    assert str(source) == written


@pytest.mark.parametrize(
    ("places", "problem"),
    [
        ({}, "exactly one"),
        ({"hf": "a/b", "path": "/m"}, "exactly one"),
        ({"path": "", "package": "p"}, "exactly one"),
        ({"package": ""}, "exactly one"),
        ({"path": "/m", "revision": "v1"}, "only a source with hf"),
        ({"hf": "minilm"}, "owner/name"),
        ({"hf": "a/b/c"}, "owner/name"),
        ({"hf": "/b"}, "owner/name"),
    ],
)
def test_a_source_is_in_exactly_one_place(places: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Source(**places)


def test_a_model_without_a_hub_source_is_known_by_its_name() -> None:
    local = ModelSpec(name="mine", sources=(Source(path="/m"),), dimensions=8, pooling="mean")

    assert (local.hub_ids, local.public_id) == ((), "mine")
    assert (SPEC.hub_ids, SPEC.public_id) == (("me/mine",), "me/mine")


@pytest.mark.parametrize(
    "module",
    [
        "emberd.registry.spec",
        "emberd.spaces.lock",
        "emberd.models.local",
        "emberd.models.sources",
        "emberd.worker.__main__",
        "emberd.worker.wire",
        "emberd.worker.tokenizer",
        "emberd.worker.batcher",
    ],
)
def test_a_workers_start_pays_for_no_library_it_does_not_use(module: str, tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", f"import {module}, sys; print(*sys.modules)"],
        capture_output=True,
        check=True,
        env=clean_environ(tmp_path),
        text=True,
    )

    paid = {"pydantic", "pydantic_core", "huggingface_hub", "yaml", "fastapi", "asyncio", "typer"}
    assert module in child.stdout.split()
    assert not paid & set(child.stdout.split())
