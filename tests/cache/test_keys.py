"""Keys say nothing about texts, and differ wherever vectors may."""

from pathlib import Path
from threading import Thread

import pytest

from emberd.cache.keys import KEY_BYTES, SECRET_BYTES, keys_of, read_secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "vectors.key"


def test_the_secret_is_made_once_for_this_user_alone(file: Path) -> None:
    secret = read_secret(file)

    assert len(secret) == SECRET_BYTES
    assert read_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["vectors.key"]


@pytest.mark.parametrize("content", [b"", b"short", bytes(100)])
def test_a_damaged_secret_is_replaced(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)

    assert len(read_secret(file)) == SECRET_BYTES


def test_workers_that_start_at_once_have_the_same_secret(file: Path) -> None:
    found: list[bytes] = []
    threads = [Thread(target=lambda: found.append(read_secret(file))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert len(set(found)) == 1


def test_keys_differ_by_secret_text_and_whatever_decides() -> None:
    given = [
        (b"a" * 32, ["space", "", None], "text"),
        (b"b" * 32, ["space", "", None], "text"),
        (b"a" * 32, ["other", "", None], "text"),
        (b"a" * 32, ["space", "t", None], "ext"),
        (b"a" * 32, ["space", "", "text"], ""),
        (b"a" * 32, ["space", "", None], "text "),
        (b"a" * 32, ["space", "", None], ""),
    ]

    keys = [keys_of(secret, decides, [text])[0] for secret, decides, text in given]

    assert len(set(keys)) == len(given)
    assert {len(key) for key in keys} == {KEY_BYTES}
    assert keys_of(*given[0][:2], ["text", "\ud800"])[0] == keys[0]  # half a surrogate pair, too
