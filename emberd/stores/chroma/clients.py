"""Clients of Chroma: of a folder, and of a server. Telemetry is off.

A folder is open from when it is first read until its store is dropped: Chroma has no lock for it,
so others are only looked for. A program that has it open can lend its client to migrations in the
same process, as Chroma opens a folder once in each.
"""

import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from emberd.config.paths import without_password
from emberd.errors import NotAStoreError, StoreError, StoreKindError
from emberd.installing import pip

DATABASE = "chroma.sqlite3"
MAGIC = b"SQLite format 3\0"

_guard = threading.RLock()  # a store may be collected while it is held
_held: dict[Path, "_Held"] = {}


class _Held:
    """An open client, and how many stores use it."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - the library is optional
        self.client = client
        self.users = 0


def require_library(*, embedded: bool) -> None:
    """Raise `StoreKindError` if chromadb, or for a server chromadb-client, is not installed."""
    try:
        import chromadb
    except ImportError:
        missing = True
    else:
        missing = embedded and bool(getattr(chromadb, "is_client", False))
    if missing:
        what = "chromadb" if embedded else "chromadb or chromadb-client"
        raise StoreKindError(
            f"Stores of the kind chroma are opened by {what}, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[chroma]')}`.",
        ) from None


def errors() -> tuple[type[Exception], ...]:
    """Return what the library raises when the engine refuses or is not there."""
    import httpx
    from chromadb.errors import ChromaError

    return (ChromaError, httpx.HTTPError, ValueError, TypeError, RuntimeError, OSError)


def is_folder(folder: Path) -> bool:
    """Whether it has Chroma's database."""
    with suppress(OSError), (folder / DATABASE).open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


def of_folder(folder: Path, user: object) -> Any:  # noqa: ANN401
    """Open a folder until `user` is dropped.

    Raises:
        StoreError: it cannot be opened.
        StoreKindError: chromadb is not installed.
    """
    require_library(embedded=True)
    folder = folder.resolve()
    if not is_folder(folder):
        raise NotAStoreError(
            f"{folder} is not a folder of Chroma.",
            hint="Give the folder that programs pass as `PersistentClient(path=...)`.",
        )
    with _guard:
        held = _held.get(folder)
        if held is None:
            held = _held[folder] = _Held(_open(folder))
        held.users += 1
    weakref.finalize(user, _release, folder, held)
    return held.client


def _open(folder: Path) -> Any:  # noqa: ANN401
    import chromadb
    from chromadb.config import Settings

    try:
        settings = Settings(anonymized_telemetry=False)
        return chromadb.PersistentClient(str(folder), settings=settings)
    except errors() as error:
        raise StoreError(
            f"{folder} cannot be opened by chromadb {chromadb.__version__}: {error}.",
            hint="Correct the permissions, or install the version that its programs use.",
        ) from None


def _release(folder: Path, held: _Held) -> None:
    with _guard:
        held.users -= 1
        if not held.users:
            close(held.client)
            del _held[folder]


def holders(folder: Path) -> list[str]:
    """Return the other processes that have a folder's database open, as far as the system tells."""
    import psutil

    database, found = str((folder / DATABASE).resolve()), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == psutil.Process().pid:
                continue
            if any(each.path == database for each in process.open_files()):
                found.append(f"process {process.pid} ({process.name()})")
    return found


def of_server(url: str, user: object) -> Any:  # noqa: ANN401
    """Return a client of a server until `user` is dropped.

    Its URL may say `?token=`, `tenant=` and `database=`.

    Raises:
        StoreError: it cannot be reached.
        StoreKindError: neither chromadb nor chromadb-client is installed.
    """
    require_library(embedded=False)
    import chromadb
    from chromadb.config import Settings

    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    headers = {"Authorization": f"Bearer {given['token']}"} if "token" in given else {}
    try:
        client = chromadb.HttpClient(
            host=parts.hostname or "localhost",
            port=parts.port or (443 if parts.scheme == "https" else 80),
            ssl=parts.scheme == "https",
            headers=headers,
            settings=Settings(anonymized_telemetry=False),
            **{key: given[key] for key in ("tenant", "database") if key in given},
        )
    except errors() as error:
        raise StoreError(
            f"{without_password(url)}: Chroma cannot be reached: {error}.",
            hint="Check that the server runs, and that the URL and its token are right.",
        ) from None
    weakref.finalize(user, close, client)
    return client


def close(client: Any) -> None:  # noqa: ANN401
    """Close a client, with the connections to a server that the library would leave open."""
    both = (client, getattr(client, "_admin_client", None))
    sessions = [getattr(getattr(each, "_server", None), "_session", None) for each in both]
    with suppress(Exception):  # it may have been closed with everything else at exit
        client.close()
        for session in filter(None, sessions):
            session.close()
