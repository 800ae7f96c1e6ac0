"""The server's log: one line per record, as JSON or for people, with log rotation.

All code logs through the standard library; the `extra` of a record becomes its fields. structlog is
not used because it imports Rich, which would take too much of the server's idle memory.
"""

import logging
import os
import sys
import time
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from typing import Any, Literal

import orjson

Format = Literal["auto", "json", "console"]
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
QUIET = ("uvicorn", "httpx2", "httpcore2", "asyncio")  # only their warnings and errors are logged


def set_up(
    level: str, form: Format, file: str | None = None, max_bytes: int = 0, backups: int = 0
) -> None:
    """Send all records of `level` and above to stderr, or instead to `file` (mode 0600).

    `auto` means `console` on a terminal, else `json`. A file that would grow beyond `max_bytes` is
    renamed to `file.1`, that one to `file.2`, and so on up to `backups`. Raises OSError.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file:
        handler = _PrivateFile(file, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
    on_terminal = not file and sys.stderr.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    handler.setFormatter(JsonFormatter() if as_json else ConsoleFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # No line says which code, thread or process it is from: see "Optimization" in logging's HOWTO.
    logging._srcfile = None  # noqa: SLF001
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a record other than its message, without those that are None."""
    return {
        key: value for key, value in vars(record).items() if key not in PLAIN and value is not None
    }


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "event", ...fields}`; an exception without its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": _utc(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
            **_exception(record),
        }
        return orjson.dumps(line, default=str).decode()


class ConsoleFormatter(logging.Formatter):
    """The same for people: time, level, event, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, without control characters."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = {**fields_of(record), **_exception(record)}
        words = [at, f"{record.levelname.lower():7}", record.getMessage()]
        line = " ".join(words + [f"{key}={value}" for key, value in fields.items()])
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _utc(record: logging.LogRecord) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{at}.{int(record.msecs):03d}Z"


def _exception(record: logging.LogRecord) -> dict[str, str]:
    """Return what was raised and where, but not its message, which might quote a text."""
    if not record.exc_info or not record.exc_info[0]:
        return {}
    kind, _, traceback = record.exc_info
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    where = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback else ""
    return {"exception": kind.__name__, "at": where}


class _PrivateFile(RotatingFileHandler):
    """A rotating file that only its owner may read."""

    def _open(self) -> TextIOWrapper:
        # Non-blocking, because opening a pipe waits for a reader.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, 0o600)
        os.set_blocking(descriptor, True)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding)
