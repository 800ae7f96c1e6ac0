"""Store kind `cmem`: a folder with `memories.db` and `config.json`, or the database itself."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from emberd.dtypes import Dtype
from emberd.errors import NotAStoreError
from emberd.stores.sqlite.sqlite_vec import SqliteVecStore, tables

# cmem embeds a chunk first, and then stores it with this prefix.
PART = re.compile(r"\[Part \d+/\d+\] ")


class CmemStore(SqliteVecStore):
    """cmem's memories. It names no model when it asks, so the server's default serves it."""

    kind: ClassVar[str] = "cmem"
    dtypes: ClassVar[Sequence[Dtype]] = ("float",)  # which is what cmem sends

    def __init__(self, path: Path, *, also: str | None = None) -> None:
        file = path / "memories.db" if path.is_dir() else path
        super().__init__(file, table="vec_memories", text="memories.content", id="id", also=also)
        config = file.with_name("config.json")
        self.settings = config if config.is_file() else None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether cmem's tables are there."""
        with suppress(NotAStoreError):
            file = path / "memories.db" if path.is_dir() else path
            return {"memories", "vec_memories"} <= tables(file)
        return False

    def clean(self, text: str) -> str:
        """Return the text without the prefix that was not embedded."""
        return PART.sub("", text, count=1) if PART.match(text) else text

    def new_settings(self, text: str, *, model: str, dimensions: int) -> str:
        """Set `embedding.model` and `embedding.dimensions`; everything else stays as it was."""
        try:
            config = json.loads(text)
            config.setdefault("embedding", {}).update(model=model, dimensions=dimensions)
        except (ValueError, AttributeError):
            raise NotAStoreError(
                f"{self.settings} is not the JSON object that cmem writes.",
                hint="Correct the file, then run this again.",
            ) from None
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
