"""Which of several collections or tables in one place is meant: the one named, or the only one."""

from collections.abc import Iterable
from pathlib import Path

from emberd.errors import NotAStoreError


def chosen(
    wanted: str | None,
    found: Iterable[str],
    *,
    place: Path | str,
    what: str,
    option: str,
    makes: str | None = None,
) -> str:
    """Return the name of one of those that were found.

    Args:
        wanted: its name, if somebody gave it.
        found: the names of all.
        place: where they are, without a password.
        what: what each is, in the singular: "collection".
        option: which option names one.
        makes: what to say if there is none.

    Raises:
        NotAStoreError: it is not there, or nobody named one and there is not just one.
    """
    names = sorted(found)
    listed = ", ".join(names) or "none"
    if not wanted and len(names) != 1:
        raise NotAStoreError(
            f"{place} has {len(names)} {what}s ({listed}), not one.",
            hint=makes
            if makes and not names
            else f"Name one of them with `--option {option}=NAME`.",
        )
    name = wanted or names[0]
    if name not in names:
        raise NotAStoreError(
            f"{place} has no {what} {name}, only: {listed}.",
            hint=f"Name one of those with `--option {option}=NAME`.",
        )
    return name
