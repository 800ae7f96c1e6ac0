"""How long texts are cut into chunks: what a request asks for, and a store's users do.

It belongs to a store's space as the model does: who cuts elsewhere stores vectors of other texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from emberd.state import known_fields
from emberd.units import Count, Ge

ChunkKind = Literal["text", "markdown", "code"]

GRAMMARS: Mapping[str, tuple[str, str]] = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "python": ("tree_sitter_python", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}
"""The programming languages whose syntax is known: a module of the extra `code`, and its function.

Not tree-sitter-language-pack: since its version 1 it downloads grammars when it is asked for one.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunking:
    """How to cut texts into chunks.

    Attributes:
        kind: what the texts are, which says where they are best cut.
        language: of code; a key of `GRAMMARS`.
        size: the most tokens of a chunk, without special ones; None: as many as the model takes.
        overlap: the most tokens that a chunk repeats of the one before.
        with_text: whether the answer repeats the text of each.
    """

    kind: ChunkKind = "text"
    language: str | None = None
    size: int | None = None
    overlap: int = 0
    with_text: bool = False


USUAL = Chunking()
"""Text, in chunks as large as the model takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChunking:
    """How the rows of a store were cut from longer texts; each is a chunk.

    Attributes:
        size: the most tokens of a chunk, without special ones, by the model that cut them.
        overlap: the most tokens that a chunk repeats of the one before.
        kind: what the texts were.
        language: of code.
        late: whether a vector was made with the whole text around its chunk.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    size: Annotated[int, Count, Ge(1)]
    overlap: Annotated[int, Count, Ge(0)] = 0
    kind: ChunkKind = "text"
    language: str | None = None
    late: bool = False

    def __post_init__(self) -> None:
        if self.overlap >= self.size:
            raise ValueError("has an overlap that is not smaller than size")
        if self.kind == "code" and self.language not in GRAMMARS:
            raise ValueError(f"needs a language of its code: one of {', '.join(sorted(GRAMMARS))}")
        if self.kind != "code" and self.language is not None:
            raise ValueError("has a language, which only kind code can have")

    def __str__(self) -> str:
        """Say it in a few words."""
        what = f"{self.language} code" if self.language else self.kind
        late = ", late" if self.late else ""
        return f"{what}, {self.size} tokens, overlap {self.overlap}{late}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> Self | None:
        """Read what `dataclasses.asdict` wrote; None stays None, and unknown keys are ignored.

        Raises:
            TypeError, ValueError, AttributeError: it is something else.
        """
        if data is None:
            return None
        chunk = cls(**known_fields(cls, data))
        types: list[type] = [type(each) for each in (chunk.size, chunk.overlap, chunk.late)]
        if types != [int, int, bool] or chunk.kind not in get_args(ChunkKind):
            raise TypeError("a chunk setting has the wrong type")
        return chunk
