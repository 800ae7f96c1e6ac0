"""How long a client may keep a connection open without getting anywhere."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """All in seconds."""

    request_s: float = 60.0  # from the first byte (or the connection) to the last one of a request
    reading_s: float = 60.0  # some of the answer has to be read in this time
    linger_s: float = 30.0  # how long a client may go on sending after its answer,
    silence_s: float = 5.0  # and how long it may pause meanwhile
