"""The worker's life after Start: load the model, then run batches until stdin closes."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from io import BufferedIOBase
from pathlib import Path
from threading import Lock, Thread, get_native_id
from typing import TYPE_CHECKING

from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.inbox import Inbox
from emberd.worker.inference import can_embed, run_batches
from emberd.worker.loading import Loaded, Phases, load
from emberd.worker.outbox import Sender, log

if TYPE_CHECKING:
    from emberd.cache.cache import VectorCache
    from emberd.worker.keeper import Keeper

LOW_PRIORITY = 10  # niceness: a tenth of a busy core
DAMAGED = 71  # exit code
WARM_UP_AFTER_S = 0.1
WRITE_WITHIN_S = 2.0  # at the end
KEPT_KINDS = ("embed", "rerank")  # each text becomes a row of so many numbers


def serve(start: wire.Start, began_s: float, stdin: BufferedIOBase, send: Sender) -> None:
    """Load the model and answer until the server closes stdin and the queue is empty.

    `began_s`: when this process began, on the monotonic clock.

    Raises:
        EmberdError: the model cannot be loaded.
        BrokenPipeError: the server is gone.
    """
    budget = Budget()
    inbox = Inbox(stdin, Batcher(budget), send)
    Thread(target=inbox.run, name="inbox", daemon=True).start()
    cache = open_cache(start)  # in a thread of its own, while the model loads
    loaded = load(start, Phases(start.spawned_s, began_s), send)
    inbox.batcher.suit(loaded.encoder, loaded.ready.max_tokens, loaded.workers)
    keeper = None
    if cache and not loaded.is_static:
        keeper = enter(cache, loaded, inbox.batcher, send)
    pools_chunks = getattr(loaded.encoder, "pools_chunks", False)
    inbox.open(loaded.tokenizer, loaded.spec, loaded.queries, keeper, pools_chunks=pools_chunks)
    send(loaded.ready)
    audit = Audit(loaded, send, cache.trust if cache else lambda: None)
    if not inbox.batcher.wait(WARM_UP_AFTER_S):
        can_embed(loaded)
        audit.begin()
    run_batches(inbox.batcher, loaded, send, budget, audit.begin, keeper.keep if keeper else None)
    if cache:
        cache.close(WRITE_WITHIN_S)


def open_cache(start: wire.Start) -> "VectorCache | None":
    """Return the cache of vectors, if there is one for this kind of model."""
    if not start.vectors or start.spec["kind"] not in KEPT_KINDS:
        return None
    from emberd.cache.cache import VectorCache  # SQLite, which nobody else here needs

    file, secret = Path(start.vectors["file"]), Path(start.vectors["secret"])
    return VectorCache(file, secret, start.vectors["most_bytes"], log)


def enter(cache: "VectorCache", loaded: Loaded, batcher: Batcher, send: Sender) -> "Keeper":
    """Have the cache find and keep vectors of this model, as this worker computes them.

    Other arithmetic, or another version, may give slightly others of the same space: whoever
    changes that wants those.
    """
    from emberd.cache.database import Space
    from emberd.worker.keeper import Keeper

    spec, ready = loaded.spec, loaded.ready
    fingerprint = ready.fingerprints[str(spec.dimensions)]
    computed = [ready.backend, ready.compute, ready.lock["engine"]]
    space = Space(json.dumps([fingerprint, *computed]), spec.name, fingerprint)
    cache.enter(space, spec.dimensions)
    return Keeper(cache, loaded, batcher, send)


class Audit:
    """Has the encoder check once, in the background, that what it computes with is intact.

    `passed` is called when it is.
    """

    def __init__(
        self, loaded: Loaded, send: Sender, passed: Callable[[], None] = lambda: None
    ) -> None:
        self._audit: Callable[[], str | None] | None = getattr(loaded.encoder, "audit", None)
        self._send = send
        self._passed = passed
        self._began = False
        self._beginning = Lock()  # streams answer at the same time

    def begin(self) -> None:
        """Start the check in its own thread, once; if it finds damage, the process ends."""
        with self._beginning:
            if self._began:
                return
            self._began = True
        if self._audit:
            Thread(target=self._run, args=(self._audit,), name="audit", daemon=True).start()
        else:
            self._passed()
            self._send(wire.Audited())

    def _run(self, audit: Callable[[], str | None]) -> None:
        with suppress(OSError):  # on Linux each thread has its own niceness
            os.setpriority(os.PRIO_PROCESS, get_native_id(), LOW_PRIORITY)
        try:
            damage = audit()
        except Exception as error:  # noqa: BLE001 - a backend may raise anything
            log(f"the audit of the loaded model failed: {type(error).__name__}")
            damage = None
        if damage:
            self._send(wire.Damaged(what=damage))
            os._exit(DAMAGED)
        self._passed()
        with suppress(BrokenPipeError):  # the server is gone
            self._send(wire.Audited())
