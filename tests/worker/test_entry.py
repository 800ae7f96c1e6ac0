"""How a worker that cannot load its model says why: one frame, whatever went wrong."""

import io
import sys
from types import SimpleNamespace

import pytest

from emberd import __version__
from emberd.errors import ModelLoadError
from emberd.worker import serving, wire
from emberd.worker.__main__ import LONGEST_MESSAGE, main

START = wire.Start(version=__version__, spec={}, hub="", cache="", lock=None)


def said(
    monkeypatch: pytest.MonkeyPatch, why: BaseException | None, start: wire.Frame | None = START
) -> wire.Frame | None:
    """Return what a worker sends if loading fails like this."""

    def serve(*_: object) -> None:
        assert why
        raise why

    monkeypatch.setattr(serving, "serve", serve)
    stdin = io.BytesIO(wire.encode(start) if start else b"")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
    replies = io.BytesIO()
    main(replies)
    replies.seek(0)
    received = wire.read(replies)
    assert wire.read(replies) is None
    return received.frame if received else None


def test_an_error_of_ours_is_sent_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = said(monkeypatch, ModelLoadError("It is damaged.", hint="Pull it."))

    assert frame == wire.StartFailed(
        code=ModelLoadError.code, message="It is damaged.", hint="Pull it."
    )


def test_a_message_that_quotes_a_file_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = said(monkeypatch, ModelLoadError("x" * 5 * LONGEST_MESSAGE))

    assert isinstance(frame, wire.StartFailed)
    assert len(frame.message) == LONGEST_MESSAGE + len(" …")


@pytest.mark.parametrize("why", [MemoryError(), RuntimeError("std::bad_alloc")])
def test_too_little_memory_is_not_the_models_fault(
    why: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = said(monkeypatch, why)

    assert isinstance(frame, wire.StartFailed)
    assert frame.code == "worker_start"
    assert "memory" in frame.message
    assert frame.hint


def test_anything_else_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = said(monkeypatch, ZeroDivisionError("by nothing"))

    assert isinstance(frame, wire.StartFailed)
    assert frame.code == "model_load_failed"
    assert "ZeroDivisionError at test_entry.py:" in frame.message
    assert "by nothing" in frame.message


def test_without_a_server_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, BrokenPipeError()) is None
    assert said(monkeypatch, None, start=None) is None
    assert said(monkeypatch, None, start=wire.Cancel(id=1)) is None


def test_a_server_of_another_version_is_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    older = wire.Start(version="0.0.1", spec={}, hub="", cache="", lock=None)

    frame = said(monkeypatch, None, start=older)

    assert isinstance(frame, wire.StartFailed)
    assert (frame.code, frame.hint) == ("worker_start", "Restart the server.")
    assert "0.0.1" in frame.message
