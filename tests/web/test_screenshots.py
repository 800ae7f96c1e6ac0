"""The pictures in the documentation are made by scripts/screenshots, every one that is named."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.web.browsing import ROOT

NAMED = re.compile(r"images/([\w-]+\.png)")


@pytest.mark.slow
def test_every_picture_that_is_named_is_made(tmp_path: Path) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = {name for page in pages for name in NAMED.findall(page.read_text())}

    done = subprocess.run(
        [ROOT / "scripts" / "screenshots", "--into", tmp_path],
        capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.png")} == named
    assert {path.name for path in (ROOT / "docs" / "images").glob("*.png")} == named
