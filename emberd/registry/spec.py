"""What the registry says about one model: `ModelSpec`, frozen.

These are plain dataclasses: `config` validates them with pydantic (types, ranges, no unknown keys),
and a worker that receives one does not have to import pydantic.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatch
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from emberd.units import Count, Duration, Ge, Gt, Le, MinLen, ReplicaCount

Kind = Literal["embed", "rerank", "sparse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Pooling = Literal["mean", "cls", "last", "max"]  # max: of a sparse model
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")  # of dense models
Precision = Literal["4bit", "8bit", "bf16", "f32"]
Compute = Literal["auto", "f32", "bf16", "f16"]
Tested = Literal["reference", "architecture", "no"]
InputType = Literal["query", "document"]
AskedRole = InputType | Literal["none"]  # none: a request for a task that has no prompt
Replicas = Annotated[Literal["auto"] | int, ReplicaCount]
EncodingName = Literal["r50k_base", "p50k_base", "cl100k_base", "o200k_base"]

OF_KIND: Mapping[str, Mapping[str, Any]] = {
    "rerank": {"dimensions": 1, "normalize": False},
    "sparse": {"pooling": "max", "normalize": False},
}
"""Keys that an entry of some kind need not state, as it can have only this value."""

FILES_OF_KIND: Mapping[Kind, tuple[str, ...]] = {
    "sparse": (
        "router_config.json", "idf.json", "sparse_linear.safetensors",
        "*_SpladePooling/config.json", "*_SparseStaticEmbedding/*.safetensors",
        "*_SparseStaticEmbedding/tokenizer.json",
    )
}  # fmt: skip
"""The files that mean nothing to models of other kinds, as glob patterns."""

MOST = 2**31 - 1  # dimensions, tokens

# Keys of an entry that only people or the server use.
NOT_FOR_WORKERS = {"idle_unload", "pinned", "aliases", "architecture", "licence", "tested"}

NOT_FOR_A_LOAD = {*NOT_FOR_WORKERS, "replicas"}


def is_of_kind(name: str, kind: Kind) -> bool:
    """Whether a model of this kind reads a file, named relative to its folder."""
    return not any(
        fnmatch(name, pattern)
        for other, patterns in FILES_OF_KIND.items()
        for pattern in patterns
        if other != kind
    )


def is_below(name: str) -> bool:
    """Say whether a relative path is plain and stays within the folder it starts from."""
    return all(part not in ("", ".", "..") for part in name.split("/")) and "\0" not in name


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A place that a model's files can come from; exactly one of `hf`, `path`, `package` is set."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    hf: str | None = None  # a Hub repository, owner/name
    revision: str | None = None  # of `hf`: a branch, tag or commit
    path: str | None = None  # a folder in the layout of a Hub repository
    package: str | None = None  # an installed Python package with such a folder

    def __post_init__(self) -> None:
        places = [place for place in (self.hf, self.path, self.package) if place is not None]
        if len(places) != 1 or not places[0]:
            raise ValueError("needs exactly one of hf, path, package")
        if self.revision is not None and self.hf is None:
            raise ValueError("has a revision, which only a source with hf can have")
        if self.revision is not None and not is_below(self.revision):
            raise ValueError(
                f"has revision {self.revision!r}, which is not a branch, tag or commit"
            )
        if self.hf is not None and (self.hf.count("/") != 1 or not is_below(self.hf)):
            raise ValueError(f"has hf {self.hf!r}, which is not of the form owner/name")

    def __str__(self) -> str:
        if self.hf:
            return f"hf:{self.hf}" + (f"@{self.revision}" if self.revision else "")
        return f"path:{self.path}" if self.path else f"package:{self.package}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIds:
    """The encoding of clients that send token ids; exactly one of `path`, `package` is set."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    encoding: EncodingName  # one of tiktoken's
    path: str | None = None  # the encoding's file
    package: str | None = None  # an installed Python package that has it

    def __post_init__(self) -> None:
        if bool(self.path) == bool(self.package):
            raise ValueError("needs exactly one of path, package")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One entry of the registry. Lengths are in tokens, durations in seconds."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    name: str
    sources: Annotated[tuple[Source, ...], MinLen(1)]
    kind: Kind = "embed"
    dimensions: Annotated[int, Count, Gt(0), Le(MOST)]
    pooling: Pooling
    normalize: bool = True
    max_tokens: Annotated[int, Count, Ge(3), Le(MOST)] | None = (
        None  # None: what the checkpoint allows
    )
    matryoshka: tuple[Annotated[int, Gt(0)], ...] = ()
    matryoshka_norm: bool = False  # a layer norm without weights before a vector is cut
    precision: Precision = "f32"
    compute: Compute = "auto"
    prompts: dict[InputType, str] = field(default_factory=dict)
    backend: str = "auto"
    replicas: Replicas | None = None  # workers, or streams of one; None: limits.replicas
    idle_unload: Annotated[float, Duration, Gt(0)] | None = None  # None: limits.idle_unload
    pinned: bool = False
    aliases: tuple[str, ...] = ()
    token_ids: TokenIds | None = None  # None: refused, since another tokenizer's ids give garbage
    # For people and tests; emberd itself does not use these.
    architecture: str | None = None  # `model_type` of its config.json
    licence: str | None = None  # SPDX, of the weights
    tested: Tested = "no"

    def __post_init__(self) -> None:
        if self.kind != "embed":
            self._refuse_what_has_no_use()
        if (self.kind == "sparse") != (self.pooling == "max"):
            raise ValueError(f"has pooling {self.pooling}; max is for models of kind sparse alone")
        too_big = [size for size in self.matryoshka if size >= self.dimensions]
        if too_big:
            raise ValueError(
                f"lists matryoshka {too_big[0]}, not smaller than dimensions {self.dimensions}"
            )

    def _refuse_what_has_no_use(self) -> None:
        """Raise ValueError for options that only some kinds of models have."""
        gives = {"rerank": "scores, not vectors", "sparse": "sparse vectors"}[self.kind]
        no_use = ["matryoshka", "matryoshka_norm", "normalize", "token_ids"]
        for key in [*no_use, "prompts"] if self.kind == "rerank" else no_use:
            if getattr(self, key):
                raise ValueError(f"has {key}, but a model of kind {self.kind} gives {gives}")
        if self.kind == "rerank" and self.dimensions != 1:
            raise ValueError("has dimensions other than 1, but a pair of texts has one score")

    @property
    def hub_ids(self) -> tuple[str, ...]:
        """The Hub repositories among its sources, in order."""
        return tuple(source.hf for source in self.sources if source.hf)

    @property
    def public_id(self) -> str:
        """The first Hub id, whichever source is used, or the name (`/health`'s `model`)."""
        return self.hub_ids[0] if self.hub_ids else self.name

    @property
    def tells_roles_apart(self) -> bool:
        """Whether the vector of a text depends on its role."""
        return self.prompts.get("query", "") != self.prompts.get("document", "")

    def workers(self, devices: int) -> int:
        """Return how many workers it should have where there are so many devices to choose from."""
        if not devices:
            return 1
        return self.replicas if isinstance(self.replicas, int) else devices

    def runs_as(self, other: "ModelSpec") -> bool:
        """Whether a worker that was started for one entry can keep running for the other."""
        return all(
            getattr(self, each.name) == getattr(other, each.name)
            for each in fields(self)
            if each.name not in NOT_FOR_WORKERS
        )

    @property
    def load_key(self) -> str:
        """A digest of everything that loading it depends on, except files and libraries."""
        told = {key: value for key, value in asdict(self).items() if key not in NOT_FOR_A_LOAD}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote, also if it went through JSON; not validated."""
        tuples = {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
        sources = tuple(Source(**source) for source in data["sources"])
        ids = TokenIds(**data["token_ids"]) if data.get("token_ids") else None
        return cls(**{**data, **tuples, "sources": sources, "token_ids": ids})
