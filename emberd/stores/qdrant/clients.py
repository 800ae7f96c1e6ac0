"""Clients of Qdrant: of a folder, which one process may hold at a time, and of a server.

A folder is held from when it is first read until its store is dropped. A program that has it open
lends its client to migrations in the same process.
"""

import fcntl
import json
import shutil
import tempfile
import threading
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from emberd.errors import NotAStoreError, StoreBusyError, StoreKindError
from emberd.flock import holder_of
from emberd.installing import pip

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

META, LOCK = "meta.json", ".lock"
TIMEOUT_S = 60
PATIENCE_S = 10.0  # how long to wait for a program that has a folder open
LOOK_S = 0.02
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Turn = AbstractContextManager[Any]
"""Held while the client is used."""

_guard = threading.RLock()  # a store may be collected while it is held
_held: dict[Path, "_Held"] = {}


@dataclass(slots=True)
class _Held:
    """An open client, and how many stores use it; a lent one is closed by who lends it."""

    client: "QdrantClient"
    users: int = 0
    turn: "Turn | None" = None  # of a lent one


def require_library() -> None:
    """Raise `StoreKindError` if qdrant-client is not installed."""
    try:
        import qdrant_client  # noqa: F401 - whether it can be
    except ImportError:
        raise StoreKindError(
            "Stores of the kind qdrant are opened by qdrant-client, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[qdrant]')}`.",
        ) from None


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what a folder says of itself; it is replaced by rename, so nobody has to be locked out.

    Raises:
        NotAStoreError: it is no folder of Qdrant's local mode.
    """
    try:
        meta: Any = json.loads((folder / META).read_text())
        is_one = isinstance(meta["collections"], dict) and isinstance(meta["aliases"], dict)
    except (OSError, ValueError, KeyError, TypeError):
        is_one = False
    if not is_one:
        raise NotAStoreError(
            f"{folder} is not a folder of Qdrant's local mode.",
            hint="Give the folder that programs pass as `QdrantClient(path=...)`.",
        )
    return dict(meta)


@contextmanager
def lent(folder: Path, client: "QdrantClient") -> Iterator[Turn]:
    """Let migrations in this process use a client that has the folder open.

    Whoever uses the client meanwhile holds what this yields: the client has one connection to
    SQLite, which two threads may not use at once.
    """
    folder, turn = folder.resolve(), threading.RLock()
    with _guard:
        _held[folder] = _Held(client, turn=turn)
    try:
        yield turn
    finally:
        with _guard:
            del _held[folder]


def of_folder(folder: Path, user: object) -> tuple["QdrantClient", bool, Turn]:
    """Open a folder until `user` is dropped; return the client, whether it can write, and its turn.

    A folder in which nothing may be written is opened as a copy.

    Raises:
        StoreBusyError: another process holds it.
        StoreKindError: qdrant-client is not installed.
    """
    require_library()
    folder = folder.resolve()
    with _guard:
        held = _held.get(folder)
        if held is None:
            try:
                (folder / LOCK).open("a").close()
            except OSError:
                return _opened_copy(folder, user), False, nullcontext()
            held = _held[folder] = _Held(_open(folder))
        held.users += 1
    weakref.finalize(user, _release, folder, held)
    return held.client, True, held.turn or nullcontext()


def _release(folder: Path, held: _Held) -> None:
    with _guard:
        held.users -= 1
        if held.turn is None and not held.users:
            held.client.close()
            del _held[folder]


def _open(folder: Path) -> "QdrantClient":
    """Open a folder as soon as nobody else has it."""
    from qdrant_client import QdrantClient

    until_s = time.monotonic() + PATIENCE_S
    while True:
        if _is_free(folder / LOCK):  # the client that finds it held leaves a file open
            with suppress(RuntimeError):  # somebody was faster
                return QdrantClient(path=str(folder), force_disable_check_same_thread=True)
        if time.monotonic() > until_s:
            raise StoreBusyError(
                f"{folder} is held by {holder_of(folder / LOCK)}: Qdrant's local mode lets one"
                " process in at a time.",
                hint="End that program, then run this again; or use a Qdrant server, which"
                " lets in many.",
            )
        time.sleep(LOOK_S)


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _opened_copy(folder: Path, user: object) -> "QdrantClient":
    """Open a copy, because the client writes to its folder when it opens it."""
    copy = tempfile.TemporaryDirectory(prefix="emberd-qdrant-")
    shutil.copytree(folder, copy.name, dirs_exist_ok=True, ignore=shutil.ignore_patterns(LOCK))
    client = _open(Path(copy.name))
    weakref.finalize(user, _close, client, copy)
    return client


def _close(client: "QdrantClient", copy: tempfile.TemporaryDirectory[str]) -> None:
    client.close()
    copy.cleanup()


def of_server(url: str, user: object) -> "QdrantClient":
    """Return a client of a server until `user` is dropped; `?api_key=` in the URL is its key."""
    require_library()
    from qdrant_client import QdrantClient

    parts = urlsplit(url)
    key = dict(parse_qsl(parts.query)).get("api_key")
    plain = parts._replace(query="").geturl()
    with warnings.catch_warnings():
        if parts.hostname in LOOPBACK:  # its warning of a key without TLS is for other machines
            warnings.simplefilter("ignore")
        client = QdrantClient(url=plain, api_key=key, timeout=TIMEOUT_S, check_compatibility=False)
    weakref.finalize(user, client.close)
    return client
