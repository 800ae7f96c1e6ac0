"""Workers without a process: they follow the contract of `Worker` and do what a test says.

A pool over them does in milliseconds what takes seconds with real ones.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from emberd.config.load import Config, load_config
from emberd.pool.manager import Pool
from emberd.pool.observer import Observer
from emberd.pool.process import OnEnd, OnFrame
from emberd.pool.request import EmbedRequest
from emberd.pool.watchdog import Patience
from emberd.registry.catalog import Catalog
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from emberd.worker import wire
from tests.serving import clean_environ

DIMENSIONS = 8
MODEL = "{{sources: [{{path: {folder}}}], dimensions: 8, pooling: mean}}"
SPACE = "space of a fake"
QUICK = Patience(  # as a slow machine is no reason to give a worker up, only IMPATIENT does
    stall_s=60,
    hung_s=60,
    check_s=0.01,
    pulse_s=0.0,
    unread_check_s=0.001,
    dead_grace_s=0.01,
    end_grace_s=0.01,
    busy_s=0.01,
    max_backoff_s=0.02,
)
IMPATIENT = replace(QUICK, stall_s=0.1, hung_s=0.1)
WITHIN_S = 30.0  # for what takes milliseconds, on a machine that is busy with something else


SPEC = ModelSpec(name="one", sources=(Source(path="/none"),), dimensions=DIMENSIONS, pooling="mean")
READY = wire.Ready(
    backend="fake",
    compute="f32",
    max_tokens=64,
    fingerprints={str(DIMENSIONS): SPACE},
    equivalent=[],
    lock={},
    phases_s={},
)


class FakeWorker:
    """Sends frames, dies and hangs on demand.

    `sent` are the frames that it was sent. While `answers` is true it answers them as they come.
    """

    def __init__(self, start: wire.Start, pid: int, *, answers: bool = True) -> None:
        self.start = start
        self.pid = pid
        self.answers = answers
        self.takes_more = True
        self.sent: list[wire.Frame] = []
        self.resident_bytes = 2**20
        self.cpu_s = 0.0
        self.looked_at: Callable[[], None] = lambda: None  # for its processor time
        self.is_gone = False
        self.was_killed = False
        self._cause = "exit code 0"
        self._frames: asyncio.Queue[wire.Received | None] = asyncio.Queue()

    # -- what a test makes it do ------------------------------------------------------------

    def say(self, frame: wire.Frame, payload: bytes = b"") -> None:
        """Send a frame to the pool."""
        self._frames.put_nowait(wire.Received(frame, payload))

    def become_ready(
        self, fingerprint: str = SPACE, *, compute: str = "f32", devices: Sequence[str] = ()
    ) -> None:
        """Say that the model is loaded, in this space, and which devices there are."""
        lock = LockEntry(source="path:/fake", folder="/fake", fingerprint=fingerprint)
        self.say(
            wire.Ready(
                backend="fake",
                compute=compute,
                max_tokens=64,
                fingerprints={str(DIMENSIONS): fingerprint},
                equivalent=[],
                lock=asdict(lock),
                phases_s={"load": 0.01},
                devices=list(devices),
            )
        )

    def answer(self, asked: wire.Frame, *places: int) -> None:
        """Answer the texts at these indices of a request; by default, all of them."""
        self.say(*answer_to(asked, *places))

    def die(self, cause: str = "SIGSEGV") -> None:
        """Close the pipe."""
        if not self.is_gone:
            self.is_gone, self._cause = True, cause
            self._frames.put_nowait(None)

    @property
    def asked(self) -> list[wire.Embed | wire.Tokenize | wire.Chunk]:
        """The requests it has been sent."""
        return [
            frame
            for frame in self.sent
            if isinstance(frame, wire.Embed | wire.Tokenize | wire.Chunk)
        ]

    # -- the contract of `Worker` -----------------------------------------------------------

    def send(self, frame: wire.Frame) -> None:
        """See `Worker`."""
        wire.encode(frame)  # raises FrameError for what is too large
        if not self.is_gone:
            self.sent.append(frame)
            if self.answers and isinstance(frame, wire.Embed | wire.Tokenize | wire.Chunk):
                self.answer(frame)

    def listen(self, received: OnFrame, over: OnEnd) -> None:
        """See `Worker`."""
        self._speaking = asyncio.create_task(self._speak(received, over))

    async def _speak(self, received: OnFrame, over: OnEnd) -> None:
        while frame := await self._frames.get():
            received(frame)
        over()

    def kill(self) -> None:
        """See `Worker`."""
        self.was_killed = True
        self.die("SIGKILL")

    async def death(self, within_s: float) -> str:
        """See `Worker`."""
        return self._cause if self.is_gone else "a closed pipe"

    async def end(self, drain_s: float) -> int:
        """See `Worker`."""
        await asyncio.sleep(0)
        self.die("exit code 0")
        return 0

    def memory_bytes(self) -> int:
        """See `Worker`."""
        return 0 if self.is_gone else self.resident_bytes

    def cpu_seconds(self) -> float:
        """See `Worker`."""
        self.looked_at()
        return self.cpu_s


def answer_to(asked: wire.Frame, *places: int) -> tuple[wire.Fragments, bytes]:
    """Return the frame that answers the texts at these indices of a request, and its payload."""
    assert isinstance(asked, wire.Embed | wire.Tokenize | wire.Chunk)
    indices = list(places or range(len(asked.texts)))
    frame = wire.Fragments(
        id=asked.id,
        indices=indices,
        sizes=[1] * len(indices),
        tokens=len(indices),
        truncated=[],
        tokenize_s=0.0,
        queue_s=0.0,
        model_s=0.0,
        encode_s=0.0,
    )
    return frame, b"v" * len(indices)


@dataclass
class Workers:
    """Spawns fakes and remembers them.

    `become_ready`: they say at once that they are; `answers`: they answer what they are asked.
    `fails` is raised by the next spawn. `devices`: what they say there is to compute on.
    """

    become_ready: bool = True
    answers: bool = True
    fails: OSError | None = None
    devices: Sequence[str] = ()
    spawned: list[FakeWorker] = field(default_factory=list)

    async def spawn(self, start: wire.Start) -> FakeWorker:
        """Stand in for `WorkerProcess.spawn`."""
        if self.fails:
            failure, self.fails = self.fails, None
            raise failure
        worker = FakeWorker(start, pid=len(self.spawned) + 1, answers=self.answers)
        self.spawned.append(worker)
        if self.become_ready:
            worker.become_ready(devices=self.devices)
        return worker

    async def nth(self, number: int) -> FakeWorker:
        """Return the worker that was spawned as number N, counted from 1, once it exists."""
        await until(lambda: len(self.spawned) >= number)
        return self.spawned[number - 1]


def config_of(home: Path, *names: str, limits: str = "{}", models: str = "") -> Config:
    """Return a configuration with these models; `models` are further lines of that group."""
    home.mkdir(parents=True, exist_ok=True)
    lines = [f"  {name}: {MODEL.format(folder=home / 'none')}" for name in names]
    text = f"default: {names[0]}\nlimits: {limits}\nmodels:\n" + "\n".join([*lines, models])
    (home / "config.yaml").write_text(text)
    return load_config(environ=clean_environ(home))


@asynccontextmanager
async def fake_pool(
    config: Config,
    workers: Workers,
    *,
    patience: Patience = QUICK,
    observer: Observer | None = None,
) -> AsyncIterator[Pool]:
    """Yield a pool over fake workers, and end it."""
    async with asyncio.timeout(WITHIN_S):
        async with Pool(config, observer, spawn=workers.spawn, patience=patience) as pool:
            yield pool


async def until(look: Callable[[], object]) -> None:
    """Return once `look` returns something true; `fake_pool` sets the time limit."""
    while not look():  # noqa: ASYNC110 - nothing announces it
        await asyncio.sleep(0.001)


def texts(*asked: str, model: str | None = None) -> EmbedRequest:
    """Return a request for these texts."""
    return EmbedRequest(texts=asked, model=model)


def with_limits(config: Config, **changes: object) -> Config:
    """Return the configuration with some limits changed."""
    limits = replace(config.settings.limits, **changes)  # type: ignore[arg-type]
    return replace(config, settings=replace(config.settings, limits=limits))


def with_entry(config: Config, name: str, **changes: object) -> Config:
    """Return the configuration with one entry changed."""
    entries = [
        replace(spec, **changes) if spec.name == name else spec  # type: ignore[arg-type]
        for spec in config.catalog
    ]
    return replace(config, catalog=Catalog(entries))
