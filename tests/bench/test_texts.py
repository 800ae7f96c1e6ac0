"""Texts to measure with: the same in every run, never repeated, of the requested lengths."""

import pytest

from emberd.bench.texts import BLOCK, LONGEST_WORDS, SHORTEST_WORDS, Texts, mixed_lengths


@pytest.mark.parametrize("words", [3, 8, 57, 400])
def test_a_text_has_the_words_asked_for(words: int) -> None:
    assert [len(text.split()) for text in Texts().take(20, words)] == [words] * 20


def test_the_same_seed_gives_the_same_texts_and_another_one_others() -> None:
    assert Texts(4).passages(20) == Texts(4).passages(20)
    assert not set(Texts(4).passages(20)) & set(Texts(5).passages(20))


def test_no_text_comes_twice() -> None:
    texts = Texts()
    many = [*texts.queries(5000), *texts.passages(500), *texts.take(2000, 3)]

    assert len(set(many)) == len(many)


def test_every_block_of_passages_is_the_same_work() -> None:
    passages = Texts().passages(3 * BLOCK)

    lengths = [
        sorted(len(text.split()) for text in passages[at : at + BLOCK]) for at in (0, 50, 100)
    ]
    assert lengths == [sorted(mixed_lengths())] * 3
    assert (lengths[0][0], lengths[0][-1]) == (SHORTEST_WORDS, LONGEST_WORDS)
