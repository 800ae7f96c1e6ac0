"""pyarrow reads and writes these files. It is the extra `parquet`: it is larger than emberd."""

from importlib.util import find_spec

from emberd.errors import BadOptionError
from emberd.installing import pip


def require_pyarrow() -> None:
    """Raise `BadOptionError` if pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise BadOptionError(
            "Parquet files are read and written by pyarrow, which is not installed.",
            hint=f"Run `{pip('install', 'emberd[parquet]')}`.",
        )
