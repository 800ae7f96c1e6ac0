"""Texts to token ids with the real MiniLM tokenizer: cut at our limit, never padded."""

import json
from pathlib import Path

import pytest

from emberd.errors import ModelLoadError
from emberd.worker.tokenizer import Tokenizer
from tests.backends.references import TINY

CLS, SEP = 101, 102
HELLO, WORLD = 7592, 2088


@pytest.fixture(scope="module")
def tokenizer(minilm: Path) -> Tokenizer:
    return Tokenizer(minilm, 512)


def test_the_file_asks_for_what_is_overridden(minilm: Path) -> None:
    asked = json.loads((minilm / "tokenizer.json").read_bytes())

    assert asked["truncation"]["max_length"] == 128
    assert asked["padding"]["strategy"] == {"Fixed": 128}


def test_special_tokens_are_included_and_padding_is_not(tokenizer: Tokenizer) -> None:
    (tokens,) = tokenizer.encode(["hello world"])

    assert tokens.ids == [CLS, HELLO, WORLD, SEP]
    assert (tokens.uncut, tokens.is_cut) == (4, False)


def test_a_text_is_as_long_as_it_is_whatever_its_neighbours_are(tokenizer: Tokenizer) -> None:
    alone = tokenizer.encode(["hello"])

    assert tokenizer.encode(["hello", "world " * 300, ""])[0] == alone[0]


@pytest.mark.parametrize(
    ("words", "length", "cut"),
    [(126, 128, False), (127, 129, False), (510, 512, False), (511, 512, True), (3000, 512, True)],
)
def test_a_text_is_cut_at_our_limit_and_not_at_the_files(
    tokenizer: Tokenizer, words: int, length: int, cut: bool
) -> None:
    (tokens,) = tokenizer.encode(["hello " * words])

    assert len(tokens.ids) == length
    assert (tokens.ids[0], tokens.ids[-1]) == (CLS, SEP)
    assert (tokens.uncut, tokens.is_cut) == (words + 2, cut)


def test_the_smallest_limit_leaves_one_token_of_the_text(minilm: Path) -> None:
    (tokens,) = Tokenizer(minilm, 3).encode(["hello world"])

    assert (tokens.ids, tokens.uncut) == ([CLS, HELLO, SEP], 4)


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00", "\u200b"])
def test_a_text_of_nothing_is_its_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    (tokens,) = tokenizer.encode([text])

    assert tokens.ids == [CLS, SEP]
    assert not tokens.is_cut


def test_a_nul_in_a_text_does_not_end_it(tokenizer: Tokenizer) -> None:
    (tokens,) = tokenizer.encode(["hello\x00 world"])

    assert tokens.ids == [CLS, HELLO, WORLD, SEP]


def test_a_request_without_texts_is_none(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]) == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"version": "1.0"', b"\xff\x00"])
def test_a_damaged_tokenizer_is_a_model_that_cannot_be_loaded(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)

    with pytest.raises(ModelLoadError, match=r"tokenizer\.json in .* cannot be read") as caught:
        Tokenizer(tmp_path, 512)

    assert "pull the model again" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["word " * 40_000, "." * 200_000, " " * 200_000 + "word " * 600])
def test_a_very_long_text_gives_the_tokens_that_the_whole_of_it_would(
    tokenizer: Tokenizer, minilm: Path, text: str
) -> None:
    whole = Tokenizer(minilm, 512)
    whole._long_chars = len(text)

    (cut,), (expected,) = tokenizer.encode([text]), whole.encode([text])

    assert cut.ids == expected.ids
    assert cut.is_cut


@pytest.fixture
def only_known() -> Tokenizer:
    """As for a static model: its tokenizer.json asks for [CLS] and [SEP]."""
    return Tokenizer(TINY / "model2vec", 5, only_known=True)


def test_a_static_model_has_no_special_tokens_and_no_unknown_ones(only_known: Tokenizer) -> None:
    (known, mixed) = only_known.encode(["ash coal", "ash 火 coal"])

    assert len(known.ids) > 0
    assert mixed == known
    assert not {1, 2, 3} & {*known.ids}  # [UNK], [CLS], [SEP]


def test_unknown_tokens_leave_room_for_others(only_known: Tokenizer) -> None:
    (known, mixed) = only_known.encode(["ash coal ash coal", "火 ash 火 coal ash 火 coal"])

    assert len(known.ids) == 5
    assert known.is_cut
    assert mixed == known


def test_a_text_without_known_tokens_has_none(only_known: Tokenizer) -> None:
    for tokens in only_known.encode(["", "火"]):
        assert tokens.ids == []
        assert not tokens.is_cut
