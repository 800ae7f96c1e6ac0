"""Which GPUs there are, as CUDA would see them, and who uses which cores; no GPU is needed."""

import os
from pathlib import Path

import pytest

from emberd.config.environment import (
    TOKENIZER_THREADS,
    VISIBLE_GPUS,
    share_cores,
    show_only,
    visible_gpus,
)


@pytest.mark.parametrize(
    ("stated", "seen"),
    [
        ("0,1", ("0", "1")),
        ("3", ("3",)),
        ("2, 0", ("2", "0")),
        ("GPU-8932f937,GPU-1c7a", ("GPU-8932f937", "GPU-1c7a")),
        ("1,-1,2", ("1",)),  # CUDA stops at what is no device
        ("", ()),
        ("-1", ()),
    ],
)
def test_what_the_environment_states_counts(
    stated: str, seen: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "nvidia0").touch()

    assert visible_gpus({VISIBLE_GPUS: stated}, tmp_path) == seen


def test_otherwise_the_devices_of_this_machine_are_counted(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()

    assert visible_gpus({}, tmp_path) == ("0", "1", "2")  # numbered anew in a container


def test_one_can_be_shown_alone() -> None:
    environ = {VISIBLE_GPUS: "2,0"}
    show_only("0", environ)

    assert visible_gpus(environ) == ("0",)


def test_those_who_share_the_cores_have_at_least_one_each() -> None:
    environ: dict[str, str] = {}
    share_cores(10_000, environ)

    assert environ == {TOKENIZER_THREADS: "1"}


def test_a_stated_number_of_threads_stays() -> None:
    environ = {TOKENIZER_THREADS: "3"}
    share_cores(2, environ)

    assert environ == {TOKENIZER_THREADS: "3"}


def test_a_limit_of_threads_is_what_it_tokenizes_with() -> None:
    environ: dict[str, str] = {}
    share_cores(1, environ, threads=2)

    assert environ == {TOKENIZER_THREADS: "2"}


def test_one_alone_has_all_cores() -> None:
    environ: dict[str, str] = {}
    share_cores(1, environ)

    assert 1 <= int(environ[TOKENIZER_THREADS]) <= (os.cpu_count() or 1)
