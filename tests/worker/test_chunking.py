"""Chunks fit, cover their text, and say where they are, for every tokenizer and hostile text."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emberd.errors import BadOptionError
from emberd.spaces.chunks import GRAMMARS
from emberd.worker import chunking, wire
from emberd.worker.chunking import Counter, GivenUpError, splitter
from emberd.worker.tokenizer import Tokenizer

TINY = Path(__file__).parents[1] / "reference" / "tiny"
FOLDERS = ("bert", "llama_bidirec", "modernbert", "t5", "xlm-roberta")  # each of another kind
PROSE = (
    "The kettle is on. Tea will be ready soon, said Ada; nobody answered.\r\n\r\n"
    "Später, à la carte: 1 234,50 € – “quoted”.\n\n\n\tIndented line.\n"
)
HOSTILE = {
    "empty": "",
    "blank": " \n\r\n\t\u3000 ",
    "prose": PROSE * 8,
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈👍🏽" * 40,
    "right to left": "שלום עולם, مرحبا بالعالم. " * 40,
    "crlf": "line\r\n" * 100,
    "nul": "a\0b \0\0 c " * 60,
    "one word": "x" * 2_000,
    "no spaces": "ab,cd;" * 300,
    "chinese": "漢字かな交じり文。" * 60,
    "marks": "e\u0301" * 400 + " " + "\u0301" * 300,
    "markdown": "# Title\n\nSome *text*.\n\n- one\n- two\n\n```python\n# no title\nx = 1\n```\n"
    * 10,
    "special": "[SEP] <s> [CLS] </s> [MASK] <pad> " * 30,
}


def asked(**options: Any) -> wire.Chunk:  # noqa: ANN401 - fields of the frame
    return wire.Chunk(**{"id": 1, "texts": [], "prompt": "", "with_text": True, **options})


def describe(tokenizer: Tokenizer, text: str, **options: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    return splitter(asked(**options), tokenizer, lambda: None).describe(text)


@pytest.fixture(scope="module", params=FOLDERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(TINY / request.param, 64)


@pytest.fixture(scope="module")
def bert(minilm: Path) -> Tokenizer:
    return Tokenizer(minilm, 64)


@pytest.mark.parametrize("kind", ["text", "markdown"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=[*HOSTILE])
def test_chunks_cover_their_text_and_fit(tokenizer: Tokenizer, kind: str, text: str) -> None:
    chunks = describe(tokenizer, text, kind=kind, size=20)

    end = 0
    utf16 = text.encode("utf-16-le")
    for chunk in chunks:
        assert chunk["text"] == text[chunk["start"] : chunk["end"]] != ""
        units = slice(2 * chunk["start_utf16"], 2 * chunk["end_utf16"])
        assert utf16[units].decode("utf-16-le") == chunk["text"]
        assert chunk["start"] >= end
        assert not text[end : chunk["start"]].strip()
        assert chunk["tokens"] == tokenizer.count([chunk["text"]])[0]
        assert chunk["tokens"] <= 20 or len(chunk["text"]) == 1
        end = chunk["end"]
    assert not text[end:].strip()


@pytest.mark.parametrize("prompt", ["", "query: ", "passage:"])
def test_the_default_is_what_the_model_takes_beside_its_prompt(
    tokenizer: Tokenizer, prompt: str
) -> None:
    chunks = describe(tokenizer, PROSE * 20, prompt=prompt)

    whole = tokenizer.encode([chunk["text"] for chunk in chunks], prompt)
    assert len(chunks) > 1
    assert not any(each.is_cut for each in whole)
    assert max(each.uncut for each in whole) > 64 * 0.6


def test_overlap_repeats_the_end_of_the_chunk_before(tokenizer: Tokenizer) -> None:
    text = " ".join(f"word{number}" for number in range(200))
    chunks = describe(tokenizer, text, size=30, overlap=15)

    pairs = [*pairwise(chunks)]
    assert pairs
    assert all(after["start"] <= before["end"] + 1 for before, after in pairs)
    assert any(after["start"] < before["end"] for before, after in pairs)
    for before, after in pairs:
        if after["start"] < before["end"]:
            assert tokenizer.count([text[after["start"] : before["end"]]])[0] <= 15


@given(st.lists(st.sampled_from([*" \n\t.,;-a漢か́Éß\0😀\u2028", "[SEP]", "word", "x" * 70])))
@settings(deadline=None)
def test_words_are_counted_as_the_text_is(bert: Tokenizer, pieces: list[str]) -> None:
    """What is counted word by word comes to what the tokenizer says of the whole."""
    text = "".join(pieces)

    assert Counter(bert, "", lambda: None)(text) == bert.count([text])[0]


def test_words_are_counted_after_many_others(
    bert: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunking, "KNOWN_WORDS", 20)
    counter = Counter(bert, "", lambda: None)
    for first in range(0, 100, 10):
        text = "hello " + " ".join(f"{number:x}" for number in range(first, first + 15))
        assert counter(text) == bert.count([text])[0]


def test_a_markdown_chunk_begins_at_a_heading(bert: Tokenizer) -> None:
    text = "".join(
        f"# Part {number}\n\nOne sentence of it. Another one.\n\n" for number in range(9)
    )
    chunks = describe(bert, text, kind="markdown", size=16)

    assert len(chunks) == 9
    assert all(chunk["text"].startswith("# Part") for chunk in chunks)


@pytest.mark.parametrize("language", sorted(GRAMMARS))
def test_code_is_cut_between_its_parts(bert: Tokenizer, language: str) -> None:
    code = CODE.get(language, "function f{n}() {{ return {n}; }}\n\n")
    parts = [code.format(n=number).strip() for number in range(12)]
    text = "<?php\n" * (language == "php") + "\n\n".join(parts)
    size = bert.count(parts[-1:])[0] + 2
    chunks = describe(bert, text, kind="code", language=language, size=size)

    assert [chunk["text"] for chunk in chunks][-12:] == parts


CODE = {
    "bash": "function f{n}() {{\n  echo one {n}\n  echo two\n}}\n\n",
    "c": "int f{n}(int a) {{\n  return a + {n};\n}}\n\n",
    "cpp": "int f{n}(int a) {{\n  return a + {n};\n}}\n\n",
    "csharp": "class F{n} {{ int G() {{ return {n}; }} }}\n\n",
    "go": "func f{n}(a int) int {{\n\treturn a + {n}\n}}\n\n",
    "java": "class F{n} {{ int g() {{ return {n}; }} }}\n\n",
    "php": "function f{n}() {{ return {n}; }}\n\n",
    "python": "def f{n}(a):\n    b = a + {n}\n    return b\n\n\n",
    "ruby": "def f{n}(a)\n  a + {n}\nend\n\n",
    "rust": "fn f{n}(a: i32) -> i32 {{\n    a + {n}\n}}\n\n",
}


def test_code_that_does_not_parse_is_cut_all_the_same(bert: Tokenizer) -> None:
    text = "def (((\n\0 %% 漢字 '''" * 100
    chunks = describe(bert, text, kind="code", language="python", size=20)

    assert len(chunks) > 5


def test_a_grammar_that_is_not_installed(bert: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_go", None)

    with pytest.raises(BadOptionError) as caught:
        describe(bert, "x", kind="code", language="go")
    assert "grammar of go" in caught.value.message
    assert "emberd[code]" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 63}, "62"),
        ({"size": 62, "prompt": "hello world"}, "60"),
        ({"prompt": "word " * 80}, "0"),
        ({"size": 10, "overlap": 10}, "overlap"),
        ({"overlap": 62}, "overlap"),
    ],
)
def test_sizes_that_cannot_be(bert: Tokenizer, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOptionError, match="chunk") as caught:
        splitter(asked(**options), bert, lambda: None)
    assert words in caught.value.message
    assert caught.value.hint


def test_what_nobody_waits_for_is_given_up(bert: Tokenizer) -> None:
    chunks = splitter(asked(size=20), bert, giving_up_after(100))

    with pytest.raises(GivenUpError):
        chunks.describe(PROSE * 1_000)


def giving_up_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def alive() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise GivenUpError

    return alive
