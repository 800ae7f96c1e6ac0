"""Every setting with its default: one frozen group per part that uses it."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from emberd.registry.spec import InputType, Replicas
from emberd.spaces.chunks import StoreChunking
from emberd.units import (
    AtMost,
    Count,
    Duration,
    Ge,
    Gt,
    Host,
    Le,
    MinLen,
    Origin,
    PathText,
    Port,
    Size,
    ZeroOrAtLeast,
)

LEAST_VECTORS_BYTES = 32 * 2**20
MOST_BODY_BYTES = 256 * 2**20  # what one frame to a worker takes; see worker/wire.py
MOST_GRACE_S = 20  # service managers wait for it, see `service.unit.STOP_S`


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where the server listens, and which requests it accepts."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    host: Annotated[Annotated[str, MinLen(1)], Host] = "127.0.0.1"
    port: Annotated[Annotated[int, Ge(0), Le(65535)] | None, Port] = 8767  # 0: any; None: off
    socket: Annotated[str | None, PathText] = None  # a Unix socket, beside the port or instead
    token_file: Annotated[str | None, PathText] = None
    allow_open: bool = False  # listen beyond loopback without a token
    allowed_hosts: tuple[str, ...] = ()  # more names to accept in the Host header
    # Web pages that may send requests, such as http://localhost:3000 or app://obsidian.md.
    allowed_origins: tuple[Annotated[str, Origin], ...] = ()
    # Between SIGTERM and taking no more requests.
    grace: Annotated[float, Duration, Ge(0), Le(MOST_GRACE_S)] = 0.0
    page: bool = True  # the page at /ui/, and the routes that are made for it


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSettings:
    """What the pool and the API may use. Durations in seconds, sizes in bytes."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    idle_unload: Annotated[float, Duration, Gt(0)] = 15 * 60.0
    max_loaded: Annotated[int, Count, Ge(1)] = 3
    memory_budget: Annotated[int, Size, Gt(0)] = 4 * 2**30
    replicas: Replicas = "auto"  # of each model
    threads: Annotated[int, Count, Ge(0)] = (
        0  # of a worker that computes on the processor; 0: a core each
    )
    max_texts: Annotated[int, Count, Ge(1)] = 2048
    max_body: Annotated[int, Size, Gt(0), AtMost(MOST_BODY_BYTES)] = 16 * 2**20
    max_queued_texts: Annotated[int, Count, Ge(1)] = 20_000
    max_queued_bytes: Annotated[int, Size, Gt(0)] = 256 * 2**20
    request_timeout: Annotated[float, Duration, Gt(0)] = 120.0
    prepare: bool = True  # compile models before their first request


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the server writes, and where. Sizes in bytes."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"  # auto: console on a terminal, else json
    file: Annotated[str | None, PathText] = None  # instead of stderr
    max_bytes: Annotated[int, Size, Gt(0)] = 10 * 2**20
    backups: Annotated[int, Count, Ge(0)] = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What is kept on disk so that it need not be computed again. Sizes in bytes."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    vectors: Annotated[int, Size, ZeroOrAtLeast(LEAST_VECTORS_BYTES)] = 0  # 0: keep none


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """A vector store whose vectors come from this server. `options` depend on its kind."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    path: Annotated[str, MinLen(1)]  # relative to the config file
    kind: str | None = None  # None: whichever kind recognises it
    model: str | None = None  # the model that its users ask for; None: the default
    input_type: InputType | None = None  # what they send with a text to store
    options: dict[str, str] = field(default_factory=dict)
    chunk: StoreChunking | None = None  # how they cut long texts into rows; None: not at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings except the models; these and `aliases` become the catalog."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    default: str = "minilm"
    default_reranker: str = "ms-marco-minilm"
    default_sparse: str = "granite-sparse"
    server: ServerSettings = field(default_factory=ServerSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    log: LogSettings = field(default_factory=LogSettings)
    cache: CacheSettings = field(default_factory=CacheSettings)
    aliases: dict[str, str] = field(default_factory=dict)  # other names, which may state a role
    stores: dict[str, StoreSettings] = field(default_factory=dict)


def leaves_of(settings: Settings) -> list[tuple[str, ...]]:
    """Return the keys of every setting with a fixed name, such as `("limits", "max_texts")`."""
    found: list[tuple[str, ...]] = []
    for group in fields(settings):
        value = getattr(settings, group.name)
        if isinstance(value, dict):
            continue  # aliases, stores: the user names them, and only in the file
        inner = fields(value) if is_dataclass(value) else ()
        found += [(group.name, field.name) for field in inner] or [(group.name,)]
    return found
