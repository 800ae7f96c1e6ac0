"""The worker's life after Start: load the model, then run batches until stdin closes."""

import os
from collections.abc import Callable
from contextlib import suppress
from io import BufferedIOBase
from threading import Lock, Thread, get_native_id

from emberd.worker import wire
from emberd.worker.batcher import Batcher
from emberd.worker.budget import Budget
from emberd.worker.inbox import Inbox
from emberd.worker.inference import can_embed, run_batches
from emberd.worker.loading import Loaded, Phases, load
from emberd.worker.outbox import Sender, log

LOW_PRIORITY = 10  # niceness: a tenth of a busy core
DAMAGED = 71  # exit code
WARM_UP_AFTER_S = 0.1


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
    loaded = load(start, Phases(start.spawned_s, began_s), send)
    inbox.batcher.suit(loaded.encoder, loaded.ready.max_tokens, loaded.workers)
    inbox.open(loaded.tokenizer, loaded.spec, loaded.queries)
    send(loaded.ready)
    audit = Audit(loaded, send)
    if not inbox.batcher.wait(WARM_UP_AFTER_S):
        can_embed(loaded)
        audit.begin()
    run_batches(inbox.batcher, loaded, send, budget, audit.begin)


class Audit:
    """Has the encoder check once, in the background, that what it computes with is intact."""

    def __init__(self, loaded: Loaded, send: Sender) -> None:
        self._audit: Callable[[], str | None] | None = getattr(loaded.encoder, "audit", None)
        self._send = send
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
        with suppress(BrokenPipeError):  # the server is gone
            self._send(wire.Audited())
