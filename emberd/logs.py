"""Logging of the server process: one record, one line, as JSON or for people; rotated in-process.

Everybody logs through the standard library; what a record carries in `extra` becomes fields. Plain
formatters and no structlog: importing that imports Rich, which the server has no memory for.
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
QUIET = ("uvicorn", "httpx2", "httpcore2", "asyncio")  # heard from when something is wrong


def set_up(
    level: str, form: Format, file: str | None = None, max_bytes: int = 0, backups: int = 0
) -> None:
    """Send all records of `level` and above to stderr, or to `file` (0600) and not to stderr.

    `auto` is `console` on a terminal, else `json`. A file that would grow over `max_bytes` becomes
    `file.1`, that one `file.2`, and so on up to `backups`. Raises OSError.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file:
        handler = _PrivateFile(file, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
    on_terminal = not file and sys.stderr.isatty()
    as_json = form == "json" or (form == "auto" and not on_terminal)
    handler.setFormatter(JsonFormatter() if as_json else ConsoleFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record carries beside its message; what is None is left out."""
    return {
        key: value for key, value in vars(record).items() if key not in PLAIN and value is not None
    }


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "event", ...fields}`; a traceback has places, no messages."""

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
    """Say what was raised and where; its message might quote a text."""
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
        # Without blocking: opening a pipe waits for somebody who reads.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK
        descriptor = os.open(self.baseFilename, flags, 0o600)
        os.set_blocking(descriptor, True)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding)
