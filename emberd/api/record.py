"""What is recorded about one request, for its log line and the metrics.

The gate puts a `Record` into the ASGI scope; `paths.py` and the routes fill it in. It never
contains a text, a vector, a token, or a path made up by the client.
"""

from dataclasses import dataclass, field

from starlette.types import Scope

from emberd.pool.job import Answer, Timing

KEY = "emberd.record"
UNKNOWN = "unknown"  # no route: nothing is at that path, or the request was refused earlier


@dataclass(slots=True)
class Record:
    """`route` is a template such as `/v1/models/{name}`, and `model` a registry name.

    `headers` are added to the answer. If it `lasts` as long as its client likes, its time says
    nothing about this server, and it is not counted.
    """

    route: str = UNKNOWN
    model: str | None = None
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    cached: int = 0
    timing: Timing | None = None
    lasts: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def note(self, answer: Answer) -> None:
        """Record what an answer says about its request."""
        self.model, self.texts, self.tokens = answer.model, len(answer.fragments), answer.tokens
        self.truncated, self.timing = len(answer.truncated), answer.timing
        self.cached = answer.cached


def record_of(scope: Scope) -> Record:
    """Return the request's record; a throw-away one if it did not pass the gate."""
    record: Record = scope.get(KEY) or Record()
    return record
