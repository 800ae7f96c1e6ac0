"""Jobs: commands of `emberd` that run as child processes of the server, and what they say.

A command says on stderr how far it is, and on stdout what came of it, both in JSON. So each has one
implementation, and the server imports neither SQLite nor numpy for it. A job goes on whether anyone
watches or not, and ends with the server.
"""

import asyncio
import logging
import secrets
import shlex
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from emberd.config.environment import for_a_command
from emberd.config.load import Config
from emberd.config.paths import Homes, find_homes
from emberd.errors import AlreadyRunningError, ConfigError, QueueFullError, ShuttingDownError
from emberd.files import is_gone

JobKind = Literal["pull", "verify", "check", "plan", "migrate", "undo"]
JobState = Literal["running", "done", "failed", "stopped"]

KEPT = 50  # jobs that are remembered
MOST_RUNNING = 4
TELL_S = 0.2  # how long changes of a job are collected before they are told
LONGEST_LINE = 2**20  # bytes
INTERRUPT_S = 6.0  # for a command to end by itself, when the server ends
KILL_S = 1.0

COMMANDS: Mapping[JobKind, tuple[Sequence[str], Sequence[str]]] = {  # and its options
    "pull": (("pull",), ()),
    "verify": (("verify",), ()),
    "check": (("migrate", "check"), ()),
    "plan": (("migrate", "run"), ("--dry-run",)),
    "migrate": (("migrate", "run"), ("--yes",)),
    "undo": (("migrate", "undo"), ("--yes",)),
}
RESUMABLE: Sequence[JobKind] = ("pull", "migrate", "undo")

log = logging.getLogger("emberd.jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """What a job does now; `done` and `total` are null if nothing is counted."""

    what: str
    done: int | None
    total: int | None
    unit: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStep:
    """A check of `verify`, as soon as it has run."""

    name: str
    verdict: str
    message: str
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobError:
    """Why a job has no result, and what to do."""

    message: str
    hint: str | None


@dataclass(slots=True, kw_only=True)
class Job:
    """A command, how far it is, and what came of it.

    `line` is what one would type. `result` is what the command prints with `--json`. Times are in
    seconds since 1970.
    """

    id: str
    kind: JobKind
    subject: str
    to: str | None
    line: str
    state: JobState = "running"
    began_s: float
    ended_s: float | None = None
    progress: JobProgress | None = None
    steps: list[JobStep] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: JobError | None = None


class Jobs:
    """Starts, follows and stops commands.

    `tell` is given each change, as an event; `ended` is called when a command may have left
    something behind, such as a model's files.
    """

    def __init__(
        self, tell: Callable[[str, object], None], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._tell, self._ended = tell, ended
        self._jobs: list[Job] = []  # oldest first
        self._running: dict[str, tuple[Process, asyncio.Task[None]]] = {}
        self._untold: set[str] = set()
        self._stopped: set[str] = set()
        self._closing = False

    def rows(self) -> list[Job]:
        """Return the last jobs, newest first."""
        return self._jobs[::-1]

    async def begin(self, config: Config, kind: JobKind, subject: str, to: str | None) -> Job:
        """Start a command about a model or a store; `to` is the model to migrate to.

        Raises:
            AlreadyRunningError: the same command has not ended yet.
            QueueFullError: enough others have not.
            ShuttingDownError: the server is about to end.
            ConfigError: no process can be started.
        """
        words = _words(kind, subject, to)
        line = command_line(config.homes, words)
        self._require_free(line)
        job = Job(id=secrets.token_hex(8), kind=kind, subject=subject, to=to, line=line,
                  began_s=time.time())  # fmt: skip
        self._jobs.append(job)
        self._forget()
        try:
            process = await _spawn(config, words)
        except OSError as error:
            self._jobs.remove(job)
            raise ConfigError(
                f"No process can be started: {error.strerror}.",
                hint="Free some memory, or raise the limit on processes (`ulimit -u`).",
            ) from None
        following = asyncio.create_task(self._follow(job, process), name=f"job {kind}")
        self._running[job.id] = process, following
        log.info("%s %s: started", kind, subject)
        self._changed(job)
        if self._closing:  # since we began to start it
            self.stop(job.id)
        return job

    def stop(self, wanted: str) -> bool:
        """Ask a job to end, as Ctrl-C does; the second time it is ended. False if it has ended."""
        if wanted not in self._running:
            return False
        process, _ = self._running[wanted]
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM if wanted in self._stopped else signal.SIGINT)
        self._stopped.add(wanted)
        return True

    async def close(self) -> None:
        """End all commands: the server ends."""
        self._closing = True
        left = [*self._running.values()]
        self._stopped.update(self._running)
        for end, patience_s in ((signal.SIGINT, INTERRUPT_S), (signal.SIGKILL, KILL_S)):
            left = [(process, following) for process, following in left if not following.done()]
            for process, _ in left:
                with suppress(ProcessLookupError):
                    process.send_signal(end)
            if left:
                await asyncio.wait([following for _, following in left], timeout=patience_s)

    def _forget(self) -> None:
        """Forget the oldest jobs that have ended."""
        ended = [job for job in self._jobs if job.state != "running"]
        for job in ended[: max(0, len(self._jobs) - KEPT)]:
            self._jobs.remove(job)

    def _require_free(self, line: str) -> None:
        if self._closing:
            raise ShuttingDownError("The server is shutting down.", hint="Try again once it is up.")
        running = [job for job in self._jobs if job.state == "running"]
        if any(job.line == line for job in running):
            raise AlreadyRunningError(
                f"`{line}` is running already.", hint="Wait until it has ended, or stop it."
            )
        if len(running) >= MOST_RUNNING:
            raise QueueFullError(
                f"{len(running)} commands are running already.",
                hint="Wait until one of them has ended, or stop one.",
            )

    async def _follow(self, job: Job, process: Process) -> None:
        assert process.stdout
        assert process.stderr
        _, output = await asyncio.gather(self._listen(job, process.stderr), process.stdout.read())
        code = await process.wait()
        del self._running[job.id]
        with suppress(orjson.JSONDecodeError):
            job.result = orjson.loads(output)
        self._end(job, code)
        log.info("%s %s: %s", job.kind, job.subject, job.state)
        self._changed(job)

    async def _listen(self, job: Job, stderr: asyncio.StreamReader) -> None:
        """Note what a command says while it runs; what is not ours is not kept."""
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # longer than any of ours
                continue
            if not line:
                return
            with suppress(orjson.JSONDecodeError, LookupError, TypeError):
                self._note(job, orjson.loads(line))

    def _note(self, job: Job, said: dict[str, Any]) -> None:
        if "progress" in said:
            job.progress = JobProgress(**said["progress"])
        elif "check" in said:
            row = said["check"]
            job.steps.append(
                JobStep(
                    name=row["check"], verdict=row["verdict"], message=row["detail"],
                    advice=row["advice"],
                )
            )  # fmt: skip
        elif "detail" in said:
            job.error = JobError(message=said["detail"], hint=said["hint"])
        self._changed(job)

    def _end(self, job: Job, code: int) -> None:
        job.ended_s, job.progress = time.time(), None
        was_stopped = job.id in self._stopped
        self._stopped.discard(job.id)
        if job.result is not None and not job.error:
            job.state = "done"  # a check that finds something wrong has an exit code, too
        elif was_stopped or code == -signal.SIGINT:
            again = f"To continue where it was, run it again: {job.line}"
            hint = again if job.kind in RESUMABLE else "It has changed nothing."
            job.state, job.error = "stopped", JobError(message="It was stopped.", hint=hint)
        else:
            job.state = "failed"
            job.error = job.error or JobError(
                message=f"The command ended with exit code {code}, and did not say why.",
                hint=f"Run it in a terminal: {job.line}",
            )

    def _changed(self, job: Job) -> None:
        """Tell a job soon, once for all that changes until then."""
        if job.id not in self._untold:
            self._untold.add(job.id)
            asyncio.get_running_loop().call_later(TELL_S, self._tell_now, job)

    def _tell_now(self, job: Job) -> None:
        self._untold.discard(job.id)
        self._tell("job", job)
        if job.state != "running":
            self._ended()


def command_line(homes: Homes, words: Sequence[str] = ()) -> str:
    """Return what somebody would type; the config file is named only where it has to be."""
    named = [] if homes.config == find_homes().config else ["--config", str(homes.config)]
    return shlex.join(["emberd", *named, *words])


def _words(kind: JobKind, subject: str, to: str | None) -> list[str]:
    command, options = COMMANDS[kind]
    options = [*(["--to", to] if to else []), *options]
    if subject.startswith("-"):
        return [*command, *options, "--", subject]
    return [*command, subject, *options]


async def _spawn(config: Config, words: Sequence[str]) -> Process:
    file = config.homes.config
    named = [] if is_gone(file) else ["--config", str(file)]
    command, *rest = words
    return await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "emberd", *named, command,
        *_for_programs(rest),
        env=for_a_command(config.settings.default),
        stdin=DEVNULL, stdout=PIPE, stderr=PIPE, limit=LONGEST_LINE, start_new_session=True,
    )  # fmt: skip


def _for_programs(words: Sequence[str]) -> list[str]:
    """Add the options for programs, before what follows `--`."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], "--json", "--progress", *words[end:]]
