"""Files of the state folder that are damaged or another program's: as if they were not there."""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from hypothesis import strategies as st

from emberd import running
from emberd.config.load import built_in_catalog
from emberd.hashing import FileHash
from emberd.pool.status import space_changed
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.options import SpaceOptions
from emberd.spaces.stores import KnownStore, StoresFile, warnings
from emberd.worker import wire
from tests.fuzz.cases import JSON, changed, damages, fuzz

ENTRY = LockEntry(
    source="hf:me/mine@v1",
    folder="/hub/mine",
    files={"model.safetensors": FileHash(7, 1_700_000_000_123_456_789, 42, "ab" * 32)},
    fingerprint="0123456789abcdef",
    fingerprints={"384": "0123456789abcdef"},
    equivalent=("fedcba9876543210",),
    options=SpaceOptions(max_tokens=512, prompts={"query": "q: "}, lower_case=False),
    backend="openvino",
    peak_memory_bytes=100,
)
ENTRIES = {"minilm": ENTRY, "mpnet": replace(ENTRY, changed_to=ENTRY, cosine=0.5)}
LOCK = {"version": 1, "models": {name: asdict(entry) for name, entry in ENTRIES.items()}}
STORE = KnownStore(path="/notes.db", kind="sqlite-vec", model="minilm", fingerprint="0123")
STORES = {"version": 1, "stores": {"notes": asdict(STORE)}}
SERVER = asdict(running.Running(1, "127.0.0.1", 8767, "1.0", None, "ab"))


def contents(good: object) -> st.SearchStrategy[bytes]:
    """Give what a file that once was `good` may hold."""
    whole = json.dumps(good).encode()
    data = (changed(good) | JSON).map(lambda data: json.dumps(data).encode())
    return data | damages().map(lambda damage: damage(whole)) | st.just(b"[" * 5000)


@fuzz(contents(LOCK), contents(STORES))
def test_what_is_remembered(lock: bytes, stores: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        (state / "lock.json").write_bytes(lock)
        (state / "stores.json").write_bytes(stores)

        remembered = LockFile(state).read()
        for name, entry in remembered.items():
            use(name, entry)
        default = built_in_catalog().get("minilm")
        known = StoresFile(state).read()
        json.dumps(warnings(known, {"notes": None, "other": "mpnet"}, default, remembered))
        LockFile(state).put("mine", ENTRY)
        StoresFile(state).put("mine", STORE)
        assert LockFile(state).read()["mine"] == ENTRY
        assert StoresFile(state).read()["mine"] == STORE


def use(name: str, entry: LockEntry) -> None:
    """Do with an entry what the server does."""
    assert not entry.files_remain
    assert entry.peak_memory_bytes + 1 > entry.peak_memory_bytes
    json.dumps([entry.now.fingerprint, asdict(entry.now.options)])
    entry.is_same_state(ENTRY)
    if entry.changed_to:
        space_changed(name, entry)
    wire.encode(wire.Start(version="", spec={}, hub="", cache="", lock=asdict(entry)))


@fuzz(contents(SERVER))
def test_where_the_server_is(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "server.json").write_bytes(content)
        noted = running.read(Path(folder))
        assert noted is None or noted.url.startswith("http://")
