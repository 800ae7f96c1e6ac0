"""What a cluster remembers for us where Ray keeps its own state: until its head ends."""

import orjson
from ray.experimental import internal_kv

SPACE = "emberd"  # of keys


def put(key: list[str], value: bytes) -> None:
    """Remember a value. Blocks for a few milliseconds, as all of these."""
    internal_kv._internal_kv_put(_bytes(key), value, overwrite=True, namespace=SPACE)  # noqa: SLF001


def put_first(key: list[str], value: bytes) -> bytes:
    """Remember a value if there is none yet, in one step; return the one that is there then."""
    internal_kv._internal_kv_put(_bytes(key), value, overwrite=False, namespace=SPACE)  # noqa: SLF001
    return get(key) or value


def get(key: list[str]) -> bytes | None:
    """Return a value, None if there is none."""
    value: bytes | None = internal_kv._internal_kv_get(_bytes(key), namespace=SPACE)  # noqa: SLF001
    return value


def _bytes(key: list[str]) -> bytes:
    return orjson.dumps(key)
