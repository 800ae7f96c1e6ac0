"""Writes texts.txt: the 2,000 passages that every peer embeds, one per line.

    python benchmarks/make_texts.py

They come from emberd's own grammar, so no other licence applies to them. Each block of 50 lines
has the same lengths, 3 to 400 words. None has more than 512 MiniLM tokens, beyond which models
would cut in different places.
"""

from pathlib import Path

from emberd.bench.texts import Texts

FILE = Path(__file__).parent / "texts.txt"
COUNT = 2000
SEED = 1


def make() -> str:
    """Return the content of the file."""
    return "\n".join(Texts(SEED).passages(COUNT)) + "\n"


if __name__ == "__main__":
    FILE.write_text(make(), encoding="utf-8")
