"""A body over the limit: the clients that most others are made of read why it is refused."""

import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.serving import Server

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import httpx
    import requests

BODY = b'{"texts": ["' + b"x" * 20_000_000 + b'"]}'
JSON = {"content-type": "application/json"}
TRIES = 5
Ask = Callable[[str, Path], tuple[int, str]]


def by_requests(url: str, _: Path) -> tuple[int, str]:
    answer = requests.post(url, data=BODY, headers=JSON, timeout=60)
    return answer.status_code, answer.text


def by_httpx(url: str, _: Path) -> tuple[int, str]:
    answer = httpx.post(url, content=BODY, headers=JSON, timeout=60)
    return answer.status_code, answer.text


def by_httpx2(url: str, _: Path) -> tuple[int, str]:
    answer = httpx2.post(url, content=BODY, headers=JSON, timeout=60)
    return answer.status_code, answer.text


def by_curl(url: str, body: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}",  # noqa: S607
         "--header", "Content-Type: application/json", "--data-binary", f"@{body}", url],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    said, _, status = done.stdout.rpartition("\n")
    return int(status), said + done.stderr


CLIENTS: list[Ask] = [by_requests, by_httpx, by_httpx2]
if shutil.which("curl"):
    CLIENTS.append(by_curl)


@pytest.mark.parametrize("ask", CLIENTS, ids=lambda ask: ask.__name__)
def test_the_413_is_read(offering: Server, ask: Ask, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(BODY)

    answers = Counter(ask(f"{offering.url}/embed", body) for _ in range(TRIES))

    ((status, said),) = answers
    assert status == 413
    assert "The body is larger than 16 MiB." in said
