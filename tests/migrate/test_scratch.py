"""Temporary files that nobody has to clear away, whenever a command is killed."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from pathlib import Path
from emberd.stores.scratch import Vectors
sys.addaudithook(lambda name, given: name == "open" and print(given[0]))
vectors = Vectors(4, Path(sys.argv[1]))
vectors.put([(1, b"four")])
print(vectors.read(0, 2)[1].tolist())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a file without a name is Linux's (O_TMPFILE)")
def test_a_file_of_vectors_has_no_name_at_any_time(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True
    )

    *opened, read = done.stdout.splitlines()
    assert {*opened} == {str(tmp_path)}
    assert read == "[True, False]"
