"""With how many threads a replica works, by what Ray sets aside for it."""

from pathlib import Path

import pytest

from emberd.config.load import load_config
from tests.serving import clean_environ

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # Ray's


@pytest.mark.parametrize(
    ("takes", "threads"),
    [
        ({"CPU": 1.0}, 1),
        ({"CPU": 3.5}, 4),
        ({}, 1),
        ({"CPU": 1.0, "GPU": 1.0}, 0),  # as many as there are cores: one alone keeps a GPU waiting
    ],
)
def test_it_is_as_many_as_its_cores_and_beside_a_gpu_all(
    tmp_path: Path, takes: dict[str, float], threads: int
) -> None:
    from emberd.ray.replica import _of_one

    config = load_config(environ=clean_environ(tmp_path))

    assert _of_one(config, "minilm", takes).settings.limits.threads == threads
