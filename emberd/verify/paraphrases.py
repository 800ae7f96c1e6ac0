"""Eight pairs of sentences that say the same thing in different words.

A model with the tokenizer and pooling it was trained with finds the partner of each among all
sixteen, so no reference file is needed. The sentences of a pair share few words, and some unrelated
ones share a word with two meanings.
"""

import numpy as np

from emberd.vectors import Matrix, normalize

PAIRS = (
    (
        "How can I get my money back for a broken kettle?",
        "I want a refund, because the kettle I bought does not work.",
    ),
    ("The doctor told him to stop smoking.", "His physician advised giving up cigarettes."),
    (
        "Heavy rain flooded the streets of the town.",
        "After the downpour the roads in the village were under water.",
    ),
    (
        "She taught herself to play the guitar.",
        "Without a teacher, she learned a string instrument.",
    ),
    ("The plane could not take off on time.", "Our flight was delayed."),
    (
        "Children under six travel for free.",
        "No ticket is needed for infants and toddlers.",
    ),
    (
        "The company dismissed half of its workers.",
        "Fifty percent of the staff lost their jobs.",
    ),
    (
        "My laptop battery runs out after an hour.",
        "The notebook does not last long without a charger.",
    ),
)
TEXTS = tuple(text for pair in PAIRS for text in pair)
_WORDS = " ".join(TEXTS).split()
_PARTNER = np.arange(len(TEXTS)) ^ 1


def passage(words: int) -> str:
    """Return prose of so many words: the sentences one after the other, again and again."""
    return " ".join((_WORDS * (words // len(_WORDS) + 1))[:words])


def partners_found(vectors: Matrix) -> int:
    """Return how many of the vectors of `TEXTS`, `(16, D)`, are nearest to their partner."""
    cosines = _cosines(vectors)
    np.fill_diagonal(cosines, -np.inf)
    return int((cosines.argmax(axis=1) == _PARTNER).sum())


def separation(vectors: Matrix) -> float:
    """Return how much closer pairs are than strangers, in standard deviations of the strangers'.

    The number for vectors `(16, D)` can be compared between models and poolings. Cosines cannot,
    because some models crowd all texts into a narrow cone.
    """
    cosines = _cosines(vectors)
    rows = np.arange(len(TEXTS))
    are_strangers = (rows[:, None] // 2) != (rows[None, :] // 2)
    strangers = cosines[are_strangers]
    spread = max(float(strangers.std()), 1e-9)  # no division by zero if all vectors are alike
    return float(cosines[rows, _PARTNER].mean() - strangers.mean()) / spread


def _cosines(vectors: Matrix) -> Matrix:
    unit = normalize(vectors)
    return unit @ unit.T
