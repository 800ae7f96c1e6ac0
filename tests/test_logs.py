"""Records as lines: fields, exceptions without their messages, control characters."""

import json
import logging
import sys

from emberd.logs import ConsoleFormatter, JsonFormatter


def record(message: str, **fields: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "emberd", **fields})


def test_json_has_the_fields_and_leaves_out_what_is_none() -> None:
    line = json.loads(JsonFormatter().format(record("request", route="/embed", model=None, ms=1.5)))

    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "logger": "emberd", "event": "request", "route": "/embed", "ms": 1.5,
    }  # fmt: skip


def test_an_exception_says_what_and_where_but_not_its_message() -> None:
    try:
        int("Rumpelstilzchen")
    except ValueError:
        failed = record("it failed", exc_info=sys.exc_info())

    for formatter in (JsonFormatter(), ConsoleFormatter()):
        line = formatter.format(failed)
        assert "ValueError" in line
        assert "test_logs.py" in line
        assert "Rumpelstilzchen" not in line


def test_a_line_is_one_line() -> None:
    sly = record("a\nb", field="\x1b[31m\r\n2026 forged")

    assert "\n" not in JsonFormatter().format(sly)
    line = ConsoleFormatter().format(sly)
    assert line.isprintable()
    assert "a\\nb" in line
