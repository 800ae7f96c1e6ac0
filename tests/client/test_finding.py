"""Which server a command asks: the one that it is told, if emberd answers there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from emberd import running
from emberd.client.finding import find_address
from emberd.config.load import load_config
from emberd.running import Running
from tests.answering import EMBERD, INSTANCE, Answering, answering
from tests.serving import clean_environ


@pytest.fixture(scope="module")
def emberd() -> Iterator[Answering]:
    with answering({"/health": (200, EMBERD)}) as server:
        yield server


def found(home: Path, **environ: str) -> str | None:
    """Return the address that is found with these variables."""
    config = load_config(environ=clean_environ(home) | environ)
    address = find_address(config)
    return address.url if address else None


def test_a_port_in_the_environment_is_asked_and_nothing_else(
    tmp_path: Path, emberd: Answering
) -> None:
    noted = Running(1, "127.0.0.1", emberd.port, "9.9", instance=INSTANCE)
    running.write(tmp_path / "state", noted)

    assert found(tmp_path, EMBERD_SERVER_PORT=str(emberd.port)) == emberd.url
    with answering({}) as other:  # which is not emberd
        assert found(tmp_path, EMBERD_SERVER_PORT=str(other.port)) is None
    assert found(tmp_path) == emberd.url


def test_the_first_token_of_the_file_is_sent_unless_the_environment_has_one(
    tmp_path: Path, emberd: Answering
) -> None:
    (tokens := tmp_path / "tokens").touch(0o600)
    tokens.write_text("first\nsecond\n")
    (tmp_path / "config.yaml").write_text(f"server: {{token_file: {tokens}}}\n")
    environ = clean_environ(tmp_path) | {"EMBERD_SERVER_PORT": str(emberd.port)}

    by_file = find_address(load_config(environ=environ))
    by_variable = find_address(load_config(environ=environ | {"EMBERD_TOKEN": "mine"}))

    assert by_file
    assert by_variable
    assert (by_file.token, by_variable.token) == ("first", "mine")
