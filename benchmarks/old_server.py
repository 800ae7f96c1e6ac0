"""Where the old server comes from: its code out of its document, its environment from PyPI.

The project holds none of its code: the document is named on the command line.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "old_server_requirements.txt"
CACHE = HERE.parent / ".cache" / "benchmarks" / "old-server"
PACKAGES = ("fastapi", "uvicorn", "mlx", "mlx-embeddings", "transformers")


def read_code(document: Path) -> str:
    """Return the one Python block of a Markdown document that is a FastAPI server."""
    blocks: list[str] = re.findall(
        r"^```python\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL
    )
    servers = [block for block in blocks if "FastAPI(" in block and "MODEL_NAME" in block]
    if len(servers) != 1:
        raise ValueError(f"{document.name} has {len(servers)} servers in it, not one")
    return servers[0]


def make_environment() -> Path:
    """Return the Python of its environment; made once, again when pins or Python change."""
    python = CACHE / "bin" / "python"
    stamp = CACHE / "made-of"
    wanted = f"Python {platform.python_version()}\n{REQUIREMENTS.read_text()}"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"making {CACHE.relative_to(HERE.parent)} (once, a minute or two)", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS], check=True)
    # As a user's would be after its first start: compiled, so that no run pays for it.
    subprocess.run([python, "-c", "import mlx_embeddings.utils, uvicorn, fastapi"], check=True)
    stamp.write_text(wanted)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return the versions of what matters in its environment."""
    code = (
        "import json, sys; from importlib.metadata import version;"
        " print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    ran = subprocess.run([python, "-c", code, *PACKAGES], check=True, capture_output=True)
    found: dict[str, str] = json.loads(ran.stdout)
    return found


def openblas(python: Path) -> Path | None:
    """Return the OpenBLAS that one of its packages (OpenCV) brings; None where there is none.

    MLX's own CPU build links the reference BLAS, which is about a hundred times slower.
    """
    if sys.platform != "linux":
        return None
    return next(python.parent.parent.glob("lib/python*/site-packages/*.libs/libopenblas*"), None)


def openblas_kernels() -> str | None:
    """Return which of its kernels this processor can run at best.

    Left alone, this version takes its oldest ones on processors that are newer than itself.
    """
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return None
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= flags:
        return "SkylakeX"
    return "Haswell" if {"avx2", "fma"} <= flags else None


def openblas_name(python: Path) -> str | None:
    """Return its version, which the file's name holds as r0-HASH.3.15, and the kernels it uses."""
    found = openblas(python)
    version = found and re.search(r"r0.*?\.(\d+\.\d+)", found.name)
    kernels = openblas_kernels() or "its own choice of"
    return f"OpenBLAS 0.{version.group(1)} with {kernels} kernels" if version else None
