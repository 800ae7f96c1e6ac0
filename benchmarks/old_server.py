"""The server that emberd replaces: its code is read from the document given on the command line.

The project contains none of its code.
"""

import re
import sys
from pathlib import Path

PACKAGES = ("fastapi", "uvicorn", "mlx", "mlx-embeddings", "transformers")


def read_code(document: Path) -> str:
    """Return the one Python block of a Markdown document that is a FastAPI server."""
    blocks: list[str] = re.findall(
        r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL
    )
    servers = [block for block in blocks if "FastAPI(" in block and "MODEL_NAME" in block]
    if len(servers) != 1:
        raise ValueError(f"{document.name} contains {len(servers)} servers, not one")
    return servers[0]


def write(code: str, model: Path, folder: Path) -> None:
    """Write server.py, with a folder that has the model in place of the Hub's name."""
    named = f"MODEL_NAME = {str(model)!r}"
    here, replaced = re.subn(r"^MODEL_NAME = .*$", lambda _: named, code, flags=re.MULTILINE)
    if replaced != 1:
        raise ValueError(f"the old server's code names its model {replaced} times, not once")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.py").write_text(here)


def openblas(python: Path) -> Path | None:
    """Return the OpenBLAS that one of its packages (OpenCV) includes; None if there is none.

    MLX's own CPU build links the reference BLAS, which is about a hundred times slower.
    """
    if sys.platform != "linux":
        return None
    return next(python.parent.parent.glob("lib/python*/site-packages/*.libs/libopenblas*"), None)


def openblas_kernels() -> str | None:
    """Return the best of its kernels that this processor can run.

    By default, this version uses its oldest ones on processors newer than itself.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "SkylakeX"
    return "Haswell" if {"avx2", "fma"} <= flags else None


def openblas_name(python: Path) -> str | None:
    """Return its version, which the file's name has as r0-HASH.3.15, and the kernels it uses."""
    found = openblas(python)
    version = found and re.search(r"r0.*?\.(\d+\.\d+)", found.name)
    kernels = openblas_kernels() or "its own choice of"
    return f"OpenBLAS 0.{version.group(1)} with {kernels} kernels" if version else None
