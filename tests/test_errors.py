"""Promises that every error keeps."""

import re
from pathlib import Path

import pytest

from emberd import errors
from emberd.api.errors import status_of
from emberd.errors import (
    BackupError,
    DiskFullError,
    EmberdError,
    MigrationError,
    ServerError,
    every_error,
    from_code,
)

PAGE = Path(__file__).parent.parent / "docs" / "errors.md"


def drawn_tree() -> dict[str, str]:
    """Return `{class: parent}` as the picture in the module's docstring shows it."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = re.match(r"^((?:[│ ] {3})*(?:[├└]── )?)(\w+Error)\b", line)
        if drawn:
            del branch[len(drawn[1]) // 4 :]
            if branch:
                parents[drawn[2]] = branch[-1]
            branch.append(drawn[2])
    return parents


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.__dict__.get("code") for cls in every_error()]

    assert None not in codes
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.__name__)
def test_an_error_is_made_again_from_what_goes_over_the_wire(cls: type[EmberdError]) -> None:
    again = from_code(cls.code, "It failed.", "Try this.")

    assert (type(again), again.message, again.hint) == (cls, "It failed.", "Try this.")


def test_an_unknown_code_is_still_a_failure_with_its_words() -> None:
    again = from_code("from_the_future", "It failed.", None)

    assert (type(again), str(again), again.hint) == (EmberdError, "It failed.", None)


def of_the_tree() -> list[type[EmberdError]]:
    """Return the classes of emberd/errors.py; the benchmark has two of its own besides."""
    return [cls for cls in every_error() if cls.__module__ == EmberdError.__module__]


def test_the_picture_shows_the_classes_that_exist() -> None:
    real = {cls.__name__: cls.__base__.__name__ for cls in of_the_tree()[1:] if cls.__base__}

    assert drawn_tree() == real


def test_the_page_has_every_code_with_its_status() -> None:
    rows = re.findall(r"^\| (`.+?`) \| (\S+) \|", PAGE.read_text(), re.MULTILINE)
    shown = [(code, status) for codes, status in rows for code in re.findall(r"`(\w+)`", codes)]

    def status(cls: type[EmberdError]) -> str:
        only_of_commands = ServerError | BackupError | DiskFullError | MigrationError
        return "—" if issubclass(cls, only_of_commands) else str(status_of(cls("")))

    assert len(dict(shown)) == len(shown)
    assert {cls.code: status(cls) for cls in of_the_tree()}.items() <= dict(shown).items()
