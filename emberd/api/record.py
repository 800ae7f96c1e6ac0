"""What becomes known of one request on its way: for its line in the log and for the metrics.

The gate puts a `Record` into the ASGI scope; `paths.py` and the routes fill it in. It holds no
text, no vector, no token, and no path that somebody made up.
"""

from dataclasses import dataclass, field

from starlette.types import Scope

from emberd.pool.job import Answer, Timing

KEY = "emberd.record"
UNKNOWN = "unknown"  # no route: nothing is there, or the request was refused before


@dataclass(slots=True)
class Record:
    """`route` is a template such as `/v1/models/{name}`; `model` a name of the registry.

    `headers` are further ones of the answer.
    """

    route: str = UNKNOWN
    model: str | None = None
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    timing: Timing | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def note(self, answer: Answer) -> None:
        """Take what an answer says about its request."""
        self.model, self.texts, self.tokens = answer.model, len(answer.fragments), answer.tokens
        self.truncated, self.timing = len(answer.truncated), answer.timing


def record_of(scope: Scope) -> Record:
    """Return the request's record; one for nobody where no gate was passed."""
    record: Record = scope.get(KEY) or Record()
    return record
