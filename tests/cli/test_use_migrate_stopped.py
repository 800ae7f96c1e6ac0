"""`emberd use NAME --migrate`, stopped at every step: stores, settings and default go together."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from emberd.vectors import Matrix
from tests.cli.test_use_migrate import result
from tests.cosines import cosines
from tests.migrate import stores
from tests.serving import Server, wait_for

TEXTS = stores.texts(60)
NAMES = ("memory", "other")
CONFIG = "default: minilm\nstores:\n  memory: {{path: {0}/memory}}\n  other: {{path: {0}/other}}\n"
USE = ("use", "minilm-f32", "--migrate", "--yes", "--json")

# The process stops itself after so many calls, so that a test can do something at that very moment.
STOPPING = """
import os, signal
from {module} import {owner} as owner
do, calls = owner.{method}, []
def stopping(self, *given, **named):
    answer = do(self, *given, **named)
    calls.append(answer)
    if len(calls) == {count}:
        os.kill(os.getpid(), signal.SIGSTOP)
    return answer
owner.{method} = stopping
from emberd.cli.main import main
main()
"""
MOMENTS = {
    "one is staged": ("emberd.migrate.sidecar", "Sidecar", "put", 1),
    "both are staged": ("emberd.migrate.sidecar", "Sidecar", "put", 2),
    "one is filled": ("emberd.stores.sqlite.vec0_replace", "Vec0Replacement", "fill", 1),
    "the default is written": ("emberd.config.edit", "Edit", "commit", 1),
    "the server has it": ("emberd.switch.switch", "Switch", "commit", 1),
    "one is committed": ("emberd.stores.sqlite.vec0_replace", "Vec0Replacement", "commit", 1),
    "both are committed": ("emberd.stores.sqlite.vec0_replace", "Vec0Replacement", "commit", 2),
    "one has its settings": ("emberd.migrate.workplace", "Workplace", "settle", 1),
    "one is finished": ("emberd.migrate.workplace", "Workplace", "finish", 1),
}
COMMITTED = list(MOMENTS).index("both are committed")


@dataclass(frozen=True)
class Place:
    """A server, and two stores in a folder; `made` are the texts' vectors by model."""

    server: Server
    folder: Path
    made: Mapping[str, Matrix]

    @property
    def config(self) -> Path:
        """The config file."""
        return self.server.home / "config.yaml"

    def stopped_at(self, moment: str) -> "subprocess.Popen[bytes]":
        """Run `use --migrate` until it has stopped itself at that moment."""
        module, owner, method, count = MOMENTS[moment]
        script = STOPPING.format(module=module, owner=owner, method=method, count=count)
        process = subprocess.Popen(
            [sys.executable, "-c", script, *USE],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.server._environ,
        )
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), process.communicate()
        return process

    def goes_on(self, process: "subprocess.Popen[bytes]") -> str:
        """Let it go on, and return what it says when it fails."""
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode not in (0, -signal.SIGINT), output
        assert b"Traceback" not in errors
        return errors.decode()

    def model_of_stores(self) -> str:
        """Return the model whose vectors both stores hold, which their settings must name."""
        (model,) = {self._model_of(self.folder / name) for name in NAMES}
        return model

    def model(self) -> str:
        """Return the model of stores, config file and server, which must agree."""
        model = self.model_of_stores()
        assert yaml.safe_load(self.config.read_text())["default"] == model
        wait_for(lambda: self.server.http.get("/reload").json()["default"]["name"] == model)
        return model

    def _model_of(self, folder: Path) -> str:
        settings = json.loads((folder / "config.json").read_text())
        model = "minilm" if settings == stores.CMEM_CONFIG else settings["embedding"]["model"]
        vectors = stores.read(folder / "memories.db")[1]
        assert cosines(vectors, self.made[model]).min() > 0.9999
        return str(model)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stopped"), config="default: minilm") as running:
        yield running


@pytest.fixture(scope="module")
def made(server: Server) -> dict[str, Matrix]:
    return {
        model: np.array(server.embed(*TEXTS, model=model)["embeddings"], np.float32)
        for model in ("minilm", "minilm-f32")
    }


@pytest.fixture
def place(server: Server, tmp_path: Path, made: dict[str, Matrix]) -> Place:
    """Two stores of 4-bit MiniLM that follow a default of 4-bit MiniLM.

    They are in a folder of their own: the server may still look at those of the test before.
    """
    for name in NAMES:
        stores.make_cmem(tmp_path / name, TEXTS, made["minilm"])
    (server.home / "state" / "stores.json").unlink(missing_ok=True)
    here = Place(server, tmp_path, made)
    here.config.write_text(CONFIG.format(tmp_path))
    assert server.http.post("/reload", json={}).is_success
    return here


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_all_is_old_or_all_is_new_after_the_next_command(place: Place, moment: str) -> None:
    process = place.stopped_at(moment)
    process.kill()
    process.communicate()

    result(place.server.run("migrate", "status", "other", "--json"))

    at = list(MOMENTS).index(moment)
    assert place.model() == ("minilm-f32" if at >= COMMITTED else "minilm")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "embedded"),
    [("one is staged", (0, 60)), ("the server has it", (0, 0)), ("one is committed", (0, 0))],
)
def test_killed_the_same_command_completes_it_and_embeds_nothing_twice(
    place: Place, moment: str, embedded: tuple[int, int]
) -> None:
    process = place.stopped_at(moment)
    process.kill()
    process.communicate()

    moved = result(place.server.run(*USE))["moved"]

    assert tuple(moved[name]["embedded"] for name in NAMES) == embedded
    assert place.model() == "minilm-f32"


@pytest.mark.slow
def test_undo_of_one_store_after_a_kill_first_takes_all_back(place: Place) -> None:
    process = place.stopped_at("one is committed")
    process.kill()
    process.communicate()

    undone = place.server.run("migrate", "undo", "memory", "--yes")

    assert b"no backup" in undone.stderr  # all is as it was already
    assert place.model() == "minilm"


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["one is staged", "the default is written", "one is committed"])
def test_interrupted_nothing_has_changed(place: Place, moment: str) -> None:
    process = place.stopped_at(moment)
    process.send_signal(signal.SIGINT)

    said = place.goes_on(process)

    assert "run it again: emberd use minilm-f32 --migrate" in json.loads(said)["hint"]
    assert process.returncode == 130
    assert place.model() == "minilm"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("both are staged", "config.yaml was edited"),
        ("the default is written", "nonsense: there is no such setting.* may be minilm-f32"),
    ],
)
def test_a_config_file_made_invalid_meanwhile_keeps_the_stores_as_they_were(
    place: Place, moment: str, words: str
) -> None:
    process = place.stopped_at(moment)
    edited = place.config.read_text() + "nonsense: true\n"
    place.config.write_text(edited)

    said = place.goes_on(process)

    assert re.search(words, said)
    assert place.config.read_text() == edited  # it is somebody's own by now
    assert place.model_of_stores() == "minilm"
    assert place.server.http.get("/reload").status_code == 500
    assert place.server.embed("text")["model"] == "minilm"
    place.config.write_text(edited.replace("nonsense: true\n", ""))
    result(place.server.run(*USE))
    assert place.model() == "minilm-f32"


@pytest.mark.slow
def test_a_server_that_ends_meanwhile_takes_nothing_along(
    home: Path, made: dict[str, Matrix]
) -> None:
    for name in NAMES:
        stores.make_cmem(home / name, TEXTS, made["minilm"])
    config = CONFIG.format(home)
    with Server(home, config=config) as own:
        place = Place(own, home, made)
        process = place.stopped_at("the default is written")
        own.process.kill()

        said = place.goes_on(process)

        assert f"The server at {own.url} did not answer" in said
        assert place.model_of_stores() == "minilm"
        assert place.config.read_text() == config
