"""Notes the stamps of the configured stores for the server, which never opens a database.

    python -m emberd.migrate.stamps CONFIG DEFAULT

It runs as a short-lived child of the server (`emberd.api.stamps`), and prints a line for each store
that cannot be read.
"""

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from emberd.config.load import Config, load_config
from emberd.errors import EmberdError
from emberd.migrate.chunked import chunking_of
from emberd.migrate.known import find
from emberd.migrate.store_ref import StoreRef
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.stores import KnownStore, StoresFile, fingerprint_here
from emberd.stores.base import Stamp


def note_stamps(config: Config) -> dict[str, EmberdError]:
    """Note every configured store whose stamp has changed since it was last noted.

    What a check has found since then stays. Returns the errors of stores that could not be read,
    by name.
    """
    known = StoresFile(config.homes.state)
    lock = LockFile(config.homes.state).read()
    unread = {}
    for name in config.settings.stores:
        try:
            ref = find(config, name)
            stamp = ref.store.stamp()
        except EmberdError as error:
            unread[name] = error
            continue
        before = known.read().get(name)
        noted = before and (before.path, before.migration)
        if noted != (ref.address, stamp and stamp.migration):
            asked = ref.served_by or config.settings.default
            with suppress(OSError):  # it will be noted next time
                known.put(name, _known(ref, stamp, asked, lock, before) if stamp else None)
    return unread


def _known(
    ref: StoreRef,
    stamp: Stamp,
    asked: str,
    lock: Mapping[str, LockEntry],
    before: KnownStore | None,
) -> KnownStore:
    """Return what to note, with the space's fingerprint on this machine if it is the same one."""
    fingerprint = fingerprint_here(stamp.space, asked, lock.get(asked))
    return ref.holding(
        stamp.model, fingerprint, dtype=stamp.dtype, migration=stamp.migration,
        chunk=chunking_of(ref, before, stamp),
    )  # fmt: skip


def main() -> None:
    """Note the stamps of one configuration."""
    file, default = sys.argv[1:]
    config = load_config(config=Path(file), flags={("default",): default})
    for name, error in note_stamps(config).items():
        sys.stdout.write(f"{name}: {error.message}\n")


if __name__ == "__main__":
    main()
