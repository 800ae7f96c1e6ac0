"""What a swap keeps beside a store: the old folder, or file, and what is known of it.

All of it has names that begin with that of the folder, so that it is deleted together:

    kept-ID           the old folder; before the swap, the new one, while it is built
    kept-ID.base      links to the old files, as the swap has copied them
    kept-ID.json      which those were, and what the new ones are called
    kept-ID.*.partial a file that is being made; what a kill leaves of it, `Workplace.sweep` deletes
"""

import shutil
import uuid
from pathlib import Path

from emberd.spaces.stores import folder_beside
from emberd.stores.exchange import aside_of


def new_place(path: Path) -> Path:
    """Return where the next new folder is built, and the old one will be."""
    return folder_beside(path) / f"kept-{uuid.uuid4().hex}"


def noted(kept: Path) -> Path:
    """Return the file that says what is known of it."""
    return kept.with_name(f"{kept.name}.json")


def base_of(kept: Path) -> Path:
    """Return where the links are."""
    return kept.with_name(f"{kept.name}.base")


def scratch_of(kept: Path) -> Path:
    """Return a name for a file that is being made; each time another, for other processes."""
    return kept.with_name(f"{kept.name}.{uuid.uuid4().hex}.partial")


def tag_of(kept: Path) -> str:
    """Return what the names of the new files have in them; never the same for two swaps."""
    return kept.name.removeprefix("kept-")[:8]


def forget(kept: Path) -> None:
    """Delete it all; some of it may be gone already.

    What an exchange has left aside stays, as it may be all that is left of the store.
    """
    for each in sorted(kept.parent.glob(f"{kept.name}*"), reverse=True):  # itself last
        if each == aside_of(kept):
            continue
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink(missing_ok=True)


def sweep(kept: Path) -> None:
    """Delete what is unfinished."""
    for each in kept.parent.glob(f"{kept.name}.*.partial"):
        each.unlink(missing_ok=True)
