"""The default changes in the file and in the running server, or in neither."""

from pathlib import Path
from typing import Any

import pytest

from emberd.client.clients import Client
from emberd.client.requests import Request
from emberd.config.edit import Edit
from emberd.config.load import load_config
from emberd.errors import ConfigError, NoServerError
from emberd.switch.switch import Switch, default_in_use
from tests.serving import Server

FILE = "# mine\ndefault: minilm  # as ever\nlimits: {max_texts: 9}\n"


class FakeServer(Client):
    """Answers `/reload` from what the file says; `default` beats the file, as a flag does."""

    def __init__(self, file: Path, *, default: str | None = None, origin: str = "file") -> None:
        super().__init__("http://127.0.0.1:1")
        self.file = file
        self.reloads = 0
        self.fails = False
        self._default, self._origin = default, origin

    def send(self, request: Request[Any]) -> Any:  # noqa: ANN401, D102 - any answer
        assert request.path == "/reload"
        self.reloads += request.method == "POST"
        if self.fails:
            raise NoServerError("It ended.")
        config = load_config(config=self.file, environ={"EMBERD_HOME": str(self.file.parent)})
        name = self._default or config.settings.default
        return {"file": str(self.file), "default": {"name": name, "origin": self._origin}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (file := tmp_path / "config.yaml").write_text(FILE)
    return file


def switch_to(file: Path, name: str, server: Client | None) -> Switch:
    config = load_config(config=file, environ={"EMBERD_HOME": str(file.parent)})
    return Switch.to(config, name, server)


def test_without_a_server_only_the_file_changes(file: Path) -> None:
    switch = switch_to(file, "mpnet", None)
    assert switch.changes_file

    switch.commit()
    assert file.read_text() == FILE.replace("minilm", "mpnet")
    assert not switch_to(file, "mpnet", None).changes_file

    switch.rollback()
    assert file.read_text() == FILE


def test_the_server_reloads_at_the_commit_and_at_the_rollback(file: Path) -> None:
    server = FakeServer(file)
    switch = switch_to(file, "mpnet", server)

    switch.commit()
    assert server.reloads == 1

    switch.rollback()
    assert (server.reloads, file.read_text()) == (2, FILE)


def test_a_rollback_of_what_was_not_done_does_no_harm(file: Path) -> None:
    switch_to(file, "mpnet", FakeServer(file)).rollback()

    assert file.read_text() == FILE


def test_a_server_that_keeps_its_default_leaves_the_file_as_it_was(file: Path) -> None:
    server = FakeServer(file, default="bge-small", origin="$EMBERD_DEFAULT")

    with pytest.raises(ConfigError, match=r"bge-small.*\$EMBERD_DEFAULT"):
        switch_to(file, "mpnet", server).commit()

    assert file.read_text() == FILE
    assert server.reloads == 2  # the one that failed, and the way back


def test_a_server_that_ends_leaves_the_file_as_it_was(file: Path) -> None:
    server = FakeServer(file)
    server.fails = True

    with pytest.raises(NoServerError):
        switch_to(file, "mpnet", server).commit()

    assert file.read_text() == FILE


def test_an_edit_by_somebody_else_is_left_alone_and_named(file: Path) -> None:
    class Edited(FakeServer):
        def send(self, request: Request[Any]) -> Any:  # noqa: ANN401 - any answer
            self.file.write_text("default: e5-small\n")
            raise NoServerError("It ended.")

    with pytest.raises(ConfigError) as caught:
        switch_to(file, "mpnet", Edited(file)).commit()

    assert str(file) in caught.value.message
    assert file.read_text() == "default: e5-small\n"


@pytest.mark.parametrize("origin", ["$EMBERD_DEFAULT", "--default"])
def test_a_default_that_was_set_otherwise_would_make_it_void(file: Path, origin: str) -> None:
    config = load_config(config=file, environ={"EMBERD_HOME": str(file.parent)})

    with pytest.raises(ConfigError, match="bge-small") as caught:
        default_in_use(config, FakeServer(file, default="bge-small", origin=origin))
    assert origin in caught.value.message

    assert default_in_use(config, None) is None
    assert default_in_use(config, FakeServer(file)) == "minilm"


def test_a_variable_of_ones_own_would_make_it_void(file: Path) -> None:
    environ = {"EMBERD_HOME": str(file.parent), "EMBERD_DEFAULT": "mpnet"}

    with pytest.raises(ConfigError, match=r"\$EMBERD_DEFAULT.*mpnet"):
        default_in_use(load_config(config=file, environ=environ), None)


@pytest.mark.parametrize(
    "before", [FILE, pytest.param(None, marks=pytest.mark.slow)], ids=["a file", "no file"]
)
def test_a_switch_can_be_taken_back_whole(home: Path, before: str | None) -> None:
    file = home / "config.yaml"
    with Server(home, config=before or "") as own, Client(own.url) as client:
        switch = Switch(Edit.of_default(file, "minilm-f32"), client, "minilm-f32")

        switch.commit()
        between = own.http.get("/health").json()
        switch.rollback()
        after = own.http.get("/health").json()

        assert (between["name"], after["name"]) == ("minilm-f32", "minilm")
        assert after["warnings"] == []
        assert file.read_text() == (before or "")


@pytest.mark.parametrize("reloaded", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_interrupt_takes_file_and_server_back(home: Path, reloaded: bool) -> None:
    with Server(home, config=FILE) as own:
        client = _Interrupted(own.url, reloaded=reloaded)
        switch = Switch(Edit.of_default(home / "config.yaml", "minilm-f32"), client, "minilm-f32")

        with pytest.raises(KeyboardInterrupt):
            switch.commit()
        client.close()

        assert (home / "config.yaml").read_text() == FILE
        assert own.http.get("/health").json()["name"] == "minilm"


class _Interrupted(Client):
    """Ctrl-C while the first answer is waited for, before or after the server did it."""

    def __init__(self, url: str, *, reloaded: bool) -> None:
        super().__init__(url)
        self._reloaded = reloaded
        self._first = True

    def send(self, request: Request[Any]) -> Any:  # noqa: ANN401 - any answer
        first, self._first = self._first, False
        if first and not self._reloaded:
            raise KeyboardInterrupt
        answer = super().send(request)
        if first:
            raise KeyboardInterrupt
        return answer


@pytest.mark.slow
def test_a_switch_that_the_server_does_not_take_leaves_the_file_as_it_was(home: Path) -> None:
    told = {"EMBERD_DEFAULT": "minilm-f32"}
    with Server(home, config=FILE, environ=told) as own, Client(own.url) as client:
        switch = Switch(Edit.of_default(home / "config.yaml", "mpnet"), client, "mpnet")

        with pytest.raises(ConfigError, match=r"minilm-f32.* \$EMBERD_DEFAULT"):
            switch.commit()

        assert (home / "config.yaml").read_text() == FILE
