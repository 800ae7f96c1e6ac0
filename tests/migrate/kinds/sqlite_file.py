"""What the databases of all SQLite kinds need: to be put in place again as they were made."""

import shutil
from pathlib import Path


def put_in_place(made: Path, path: Path) -> None:
    """Copy a closed database to where a test expects it, as if it had never been migrated."""
    shutil.rmtree(path.with_name(f"{path.name}.emberd"), ignore_errors=True)
    for end in ("", "-wal", "-shm", "-journal"):
        path.with_name(f"{path.name}{end}").unlink(missing_ok=True)
    shutil.copy2(made, path)
