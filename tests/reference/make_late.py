"""Late chunking: what transformers makes of chunks of texts that it has read whole.

For some of `tiny/`, `late.json` has texts, chunks of them (in code points; neighbours share a word)
and which tokens each has, `[first, end)`. `late.npz` has their vectors, `(N, D)` float32 by model,
text after text: the means of those tokens' last hidden states (arXiv:2409.04701; special
tokens are in none), not of unit length. The text after `PROMPT` has other vectors, under
`NAME with prompt`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from make_tiny import FAMILIES, TINY, Vectors, load_model, published, write_json
from tokenizers import Encoding, Tokenizer

HERE = Path(__file__).parent
NAMES = ("bert", "jina_bert", "modernbert", "nomic_bert")
KINDS = ("sentence", "capitals-digits-punctuation", "accents", "unknown-characters")
PROMPT = "ash: "
WORDS = 2  # of a chunk

Spans = list[tuple[int, int]]


def spans_of(text: str) -> Spans:
    """Return chunks of a text: each begins with the last word of the one before."""
    words = text.split()
    starts = [text.index(word) for word in words]
    ends = [start + len(word) for start, word in zip(starts, words, strict=True)]
    firsts = range(0, max(1, len(words) - 1), WORDS - 1)
    return [(starts[at], ends[min(at + WORDS, len(words)) - 1]) for at in firsts]


def tokens_of(encoding: Encoding, span: tuple[int, int], before: int) -> tuple[int, int]:
    """Return which tokens the characters of a chunk are in, `before` characters into a text."""
    found = {encoding.char_to_token(before + at) for at in range(*span)} - {None}
    return min(found), max(found) + 1


def main() -> None:
    """Write both files."""
    torch.set_num_threads(1)
    published.register()
    said: dict[str, object] = {"prompt": PROMPT}
    arrays: dict[str, Vectors] = {}
    for family in FAMILIES:
        if family.name not in NAMES:
            continue
        folder = TINY / family.name
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        model = load_model(family, folder, "eager")
        reference = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        texts = [each["text"] for each in reference["texts"] if each["kind"] in KINDS]
        said[family.name] = []
        for prompt, key in (("", family.name), (PROMPT, f"{family.name} with prompt")):
            rows = []
            for text in texts:
                spans = spans_of(text)
                encoding = tokenizer.encode(prompt + text)
                chunks = [tokens_of(encoding, span, len(prompt)) for span in spans]
                ids = torch.tensor([encoding.ids])
                with torch.inference_mode():
                    out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
                states = out.last_hidden_state[0]
                rows += [states[first:end].mean(dim=0).numpy() for first, end in chunks]
                if not prompt:
                    said[family.name].append({"text": text, "spans": spans, "chunks": chunks})
            arrays[key] = np.stack(rows)
    write_json(HERE / "late.json", said)
    np.savez_compressed(HERE / "late.npz", **arrays)


if __name__ == "__main__":
    main()
