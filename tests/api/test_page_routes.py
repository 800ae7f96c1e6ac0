"""What only the page needs is loaded when somebody asks for it, and not while the server ends."""

import asyncio
import subprocess
import sys

import pytest

from emberd.api.access import BearerTokens
from emberd.api.app import App, create_app
from emberd.config.live import LiveConfig
from emberd.config.load import load_config
from emberd.errors import ShuttingDownError
from emberd.running import Running

START = """
import sys
from tests.api.test_page_routes import make_app
app = make_app()
late = {f"emberd.api.{name}" for name in ("jobs", "commands", "map", "map_process", "stores", "trust")}
assert not late & {*sys.modules}, late & {*sys.modules}
assert {"/jobs", "/trust", "/stores"} <= {route.path for route in app.routes()}
assert late <= {*sys.modules}
"""  # noqa: E501 - a program


def make_app() -> App:
    config = load_config(environ={"EMBERD_HOME": "/nowhere"})
    here = Running(1, "127.0.0.1", 8767, "1")
    return create_app(LiveConfig(config, lambda: config), BearerTokens(None, None), here)


def test_a_server_starts_without_the_routes_of_the_page() -> None:
    subprocess.run([sys.executable, "-c", START], check=True)


def test_they_are_not_loaded_while_it_ends() -> None:
    app = make_app()

    asyncio.run(app.page.close())

    with pytest.raises(ShuttingDownError, match="shutting down"):
        app.routes()
