"""`emberd open`: the address of the page, in whichever browser `$BROWSER` names."""

from pathlib import Path

import pytest

from tests.serving import Server, clean_environ, run_emberd


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that writes down which address it was given."""
    path = tmp_path / "browser"
    path.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    path.chmod(0o700)
    return path


def test_it_opens_the_page_and_prints_its_address(server: Server, browser: Path) -> None:
    environ = {**clean_environ(server.home), "BROWSER": f"{browser} %s"}

    done = run_emberd("open", home=server.home, environ=environ)

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{server.url}/ui/\n"
    assert (browser.parent / "opened").read_text() == f"{server.url}/ui/\n"


def test_it_says_that_the_page_asks_for_a_token_and_does_not_show_it(
    home: Path, browser: Path
) -> None:
    token = {"EMBERD_TOKEN": "of-the-environment-42"}
    with Server(home, environ=token) as guarded:
        environ = {**clean_environ(home), **token, "BROWSER": f"{browser} %s"}

        done = run_emberd("open", home=home, environ=environ)

        said = done.stdout.decode()
        assert said == f"{guarded.url}/ui/\nThe page will ask for a token of this server.\n"
        assert (browser.parent / "opened").read_text() == f"{guarded.url}/ui/\n"


def test_without_a_browser_there_is_still_the_address(server: Server, tmp_path: Path) -> None:
    environ = {**clean_environ(server.home), "BROWSER": "/nowhere/browser %s"}

    done = run_emberd("open", home=server.home, environ={**environ, "PATH": str(tmp_path)})

    assert done.returncode == 0
    assert done.stdout.decode() == f"{server.url}/ui/\n"
    assert done.stderr.decode().startswith("warning: No browser could be started.")


def test_a_server_without_a_port_has_no_page_for_a_browser(home: Path, browser: Path) -> None:
    home.mkdir(mode=0o700)
    config = f"server: {{port: off, socket: {home}/s}}\n"
    with Server(home, config=config, arguments=()) as private:
        environ = {**clean_environ(home), "BROWSER": f"{browser} %s"}

        done = run_emberd("open", home=private.home, environ=environ)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"hint: Set server.port in the config file" in done.stderr
    assert not (browser.parent / "opened").exists()


def test_a_server_without_a_page_says_which_setting_leaves_it_out(
    home: Path, browser: Path
) -> None:
    with Server(home, config="server: {page: false}\n"):
        environ = {**clean_environ(home), "BROWSER": f"{browser} %s"}

        done = run_emberd("open", home=home, environ=environ)

    assert (done.returncode, done.stdout) == (1, b"")
    assert b"server.page is false" in done.stderr
    assert not (browser.parent / "opened").exists()
