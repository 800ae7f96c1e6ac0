"""Beyond one machine, on Ray: Serve for requests, Data for files. Only here is Ray imported.

`app` is what `serve run emberd.ray:app` serves. It is made when it is first asked for, from the
configuration that `$EMBERD_CONFIG` or `$EMBERD_HOME` names.
"""

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a name of a file that imports Ray
    homes = {"app": "emberd.ray.serve", "Embedder": "emberd.ray.embedder"}
    if name in homes:
        from importlib import import_module

        return getattr(import_module(homes[name]), name)
    raise AttributeError(f"module 'emberd.ray' has no attribute {name!r}")
