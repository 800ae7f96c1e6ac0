"""What can be set, with every default: one frozen group per part that uses it."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, MinLen

from emberd.units import Count, Duration, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server listens and whom it answers."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    host: Annotated[str, MinLen(1)] = "127.0.0.1"
    port: Annotated[int, Count, Ge(0), Le(65535)] = 8767  # 0: any free one
    allowed_hosts: tuple[str, ...] = ()  # further names in the Host header that mean this server
    allowed_origins: tuple[str, ...] = ()  # web pages that may ask, such as http://localhost:3000


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """What the pool and the API may use. Durations in seconds, sizes in bytes."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    idle_unload: Annotated[float, Duration, Gt(0)] = 15 * 60.0
    max_loaded: Annotated[int, Count, Ge(1)] = 3
    memory_budget: Annotated[int, Size, Gt(0)] = 4 * 2**30
    max_texts: Annotated[int, Count, Ge(1)] = 2048
    max_body: Annotated[int, Size, Gt(0)] = 16 * 2**20
    max_queued_texts: Annotated[int, Count, Ge(1)] = 20_000
    request_timeout: Annotated[float, Duration, Gt(0)] = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings but the models, which become the catalog."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    default: str = "minilm"
    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
