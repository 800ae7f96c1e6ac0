"""The embedding function that a Chroma collection records, when its vectors are another model's.

`get_collection` refuses a function of another name than the recorded one, and makes the recorded
one if it is given none. So a recorded model name has to follow; what names no model, except the
default, is not recorded again.
"""

from collections.abc import Mapping
from typing import Any

FUNCTION = "embedding_function"  # in a collection's configuration
DEFAULT = "default"  # never refused, and made where nothing is recorded
MODEL = "model_name"  # in the settings of a function that asks a server


def names_model(function: Mapping[str, Any]) -> bool:
    """Whether what is recorded says which model is asked."""
    return MODEL in (function.get("config") or {})


def follower(function: Mapping[str, Any], model: str | None) -> Any:  # noqa: ANN401
    """Return what is recorded with the new collection; None for nothing.

    Without a `model`, it is a copy, and records the same.
    """
    name, config = function.get("name"), dict(function.get("config") or {})
    if not name or (model and name != DEFAULT and not names_model(function)):
        return None
    if model and names_model(function):
        config[MODEL] = model
    return _recorded(str(name), config)


def _recorded(name: str, config: dict[str, Any]) -> Any:  # noqa: ANN401
    """Return a function that only says what is to be recorded of it."""
    from chromadb.api.types import EmbeddingFunction

    class Recorded(EmbeddingFunction):  # type: ignore[type-arg]
        def __init__(self) -> None:
            """Nothing is needed to say it."""

        def __call__(self, input: Any) -> Any:  # noqa: ANN401 - never called
            raise NotImplementedError

        @staticmethod
        def name() -> str:
            return name

        @staticmethod
        def build_from_config(config: dict[str, Any]) -> Any:  # noqa: ANN401
            del config
            return Recorded()  # Chroma looks whether it can be built

        def get_config(self) -> dict[str, Any]:
            return config

        def supported_spaces(self) -> list[Any]:
            return ["cosine", "l2", "ip"]

    return Recorded()
