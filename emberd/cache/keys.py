"""Under which key a vector is kept: a keyed hash of everything that decides it, never a text.

Without the secret, which lies in another folder than the cache, nobody can test whether a text that
they guess was embedded here.
"""

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import orjson

SECRET_BYTES = 32
KEY_BYTES = 16


def read_secret(file: Path) -> bytes:
    """Return this machine's secret; the first time, make one, in a file of mode 0600.

    Raises:
        OSError: it cannot be read or written.
    """
    with suppress(FileNotFoundError):
        secret = file.read_bytes()
        if len(secret) == SECRET_BYTES:
            return secret
        file.unlink()  # damaged: nothing can be found any longer
    file.parent.mkdir(0o700, parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.urandom(4).hex()}.part")
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as written:
            written.write(os.urandom(SECRET_BYTES))
        with suppress(FileExistsError):  # another worker's, made meanwhile
            os.link(part, file)
    finally:
        part.unlink()
    return file.read_bytes()


def keys_of(secret: bytes, decides: object, texts: Iterable[str]) -> list[bytes]:
    """Return the key of each text; `decides` is what else its vector depends on, as JSON values."""
    begun = hashlib.blake2b(orjson.dumps(decides), key=secret, digest_size=KEY_BYTES)
    keys = []
    for text in texts:
        whole = begun.copy()
        whole.update(text.encode(errors="surrogatepass"))
        keys.append(whole.digest())
    return keys
