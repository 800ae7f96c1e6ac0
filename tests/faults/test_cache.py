"""A compiled model that is damaged so that a start does not notice: found, told, made again."""

from pathlib import Path

import numpy as np
import pytest

from tests.migrate.stores import texts
from tests.serving import Server, wait_for
from tests.verify.support import Report

PAGE_WORDS = 512  # of 8 bytes: 4 KiB
BULK = [" ".join([text] * 4) for text in texts(2000)]  # takes longer than the audit beside it


def vectors(
    server: Server, wanted: list[str]
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    return np.array(server.embed(*wanted)["embeddings"], np.float32)


def blob_of(home: Path) -> Path:
    (blob,) = (home / "cache" / "openvino").glob("*/*.blob")
    return blob


def turn_pages_around(blob: Path) -> None:
    """Reverse the words within each page of the word embeddings: its sum stays as it was."""
    content = bytearray(blob.read_bytes())
    pages = len(content) // 8 // PAGE_WORDS
    words = np.frombuffer(content, "<u8", pages * PAGE_WORDS).reshape(pages, PAGE_WORDS)
    embeddings = words[pages // 10 : pages * 9 // 20]  # they come first, and are half of the file
    embeddings[:] = embeddings[:, ::-1].copy()
    blob.unlink()
    blob.write_bytes(content)


def damaged_home(home: Path) -> tuple[Path, "np.ndarray[tuple[int, int], np.dtype[np.float32]]"]:
    """Return the blob, damaged, and the right vectors of the bulk."""
    with Server(home, share_compiled=False) as own:
        right = vectors(own, BULK)
    turn_pages_around(blob_of(home))
    return blob_of(home), right


@pytest.mark.slow
def test_answers_of_a_damaged_compiled_model_are_counted_and_it_is_made_again(home: Path) -> None:
    damaged, right = damaged_home(home)
    inode = damaged.stat().st_ino
    with Server(home, share_compiled=False) as own:
        wrong = vectors(own, BULK[:1])
        (warning,) = wait_for(lambda: own.http.get("/health").json()["warnings"])
        error = own.row()["last_error"]
        again = vectors(own, BULK[:50])
        wait_for(lambda: blob_of(home).stat().st_ino != inode)

        assert (wrong @ right[0])[0] < 0.99
        assert warning["code"] == "vectors_damaged"
        assert "It had answered 1 requests since 20" in warning["message"]
        assert str(damaged) in warning["message"]
        assert error == warning["message"]
        assert error in own.log()
        assert (again * right[:50]).sum(axis=1).min() > 0.9999
        assert own.http.get("/health").json()["warnings"] == [warning]  # until the server ends
        assert b"vectors_damaged" not in own.run("ps").stdout
        assert b"damaged" in own.run("ps").stderr
    with Server(home, share_compiled=False) as own:
        assert (vectors(own, BULK[:9]) * right[:9]).sum(axis=1).min() > 0.9999
        assert own.http.get("/health").json()["warnings"] == []


@pytest.mark.slow
def test_verify_names_a_damaged_compiled_model(home: Path) -> None:
    damaged, _ = damaged_home(home)

    first, second = Report("minilm", home=home), Report("minilm", home=home)

    assert first.code == 1
    assert first.verdict("minilm", "compiled model") == "failed"
    assert str(damaged) in first.row("minilm", "compiled model")["detail"]
    assert (second.code, second.rows_of("minilm", "compiled model")) == (0, [])


@pytest.mark.slow
def test_a_request_that_is_under_way_is_computed_again_from_its_first_text(home: Path) -> None:
    _, right = damaged_home(home)
    with Server(home, share_compiled=False) as own:
        got = vectors(own, BULK)

        assert (got * right).sum(axis=1).min() > 0.9999
        assert "It had answered 0 requests since 20" in own.log()
        assert own.http.get("/health").json()["warnings"] == []
