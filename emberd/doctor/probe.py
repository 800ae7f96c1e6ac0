"""`python -m emberd.doctor.probe NAME`: tries a backend's library in a separate process.

The library may crash the process. Prints one JSON object: what `auto` picks, or a backend's version
and devices, or why it cannot be used. No model is loaded.
"""

import json
import os
import sys
from importlib import metadata
from typing import Any

from emberd.backends import plugins
from emberd.errors import EmberdError


def probe(name: str) -> dict[str, Any]:
    """Import the library that the backend computes with, and ask for its devices."""
    if name == "auto":
        return {"resolved": plugins.resolve(name)}
    version = None
    try:
        backend = plugins.load(name)
        for library in backend.libraries[:1]:  # the one that computes
            version = metadata.version(library)
        return {"version": version, "devices": list(plugins.devices(backend))}
    except metadata.PackageNotFoundError as error:
        return {"missing": error.name}
    except EmberdError as error:
        return {"version": version, "error": error.message, "hint": error.hint}


if __name__ == "__main__":
    answer_to = os.dup(1)
    os.dup2(2, 1)  # C code prints to descriptor 1
    found = json.dumps(probe(sys.argv[1]))
    os.write(answer_to, found.encode())
