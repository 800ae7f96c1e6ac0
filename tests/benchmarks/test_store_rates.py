"""What the measurement of large stores is made of, without the measurement."""

import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import store_rates

from tests.migrate.kinds.blob import Subject


def test_the_rows_of_a_store_are_drawn_one_block_at_a_time(tmp_path: Path) -> None:
    rows = store_rates.Drawn(Subject(tmp_path), 1_000_000)

    found = list(islice(rows, store_rates.BLOCK - 1, store_rates.BLOCK + 2))

    assert len(rows) == 1_000_000
    for at, (key, text, vector) in enumerate(found, start=store_rates.BLOCK - 1):
        again = rows[at]
        assert (key, text) == again[:2] == (at, store_rates.text_of(at))
        assert np.array_equal(vector, again[2])
        assert vector.shape == (store_rates.DIMENSIONS,)
    assert rows[999_999][1] != rows[9_999][1]


def test_texts_are_all_different() -> None:
    assert len(set(store_rates.WORDS)) == len(store_rates.WORDS)
    assert len(store_rates.WORDS) ** 4 > 10_000_000


def test_memory_is_compared_with_that_of_the_first_rows() -> None:
    process = psutil.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    process.communicate()
    watched = store_rates.Watched(process)
    watched.resident = [
        (1.0, 80_000_000),
        (2.0, 100_000_000),
        (3.0, 90_000_000),
        (4.0, 103_000_000),
    ]
    watched.anonymous = [(1.0, 50_000_000), (4.0, 49_000_000)]
    watched.done = [(1.5, 10), (2.5, 50), (3.5, 100)]

    assert watched.memory(50) == {
        "resident": {"first_mb": 100.0, "peak_mb": 103.0, "growth_percent": 3.0},
        "anonymous": {"first_mb": 50.0, "peak_mb": 49.0, "growth_percent": -2.0},
    }
