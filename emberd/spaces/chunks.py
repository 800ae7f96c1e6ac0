"""How long texts are cut into chunks: what a request asks for, and a store's users do.

It belongs to a store's space as the model does: who cuts elsewhere stores vectors of other texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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
