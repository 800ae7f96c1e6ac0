"""Hugging Face transformers without a server: each line of JSON in is a command, each out a result.

Texts are the numbers of their tokens. They are sorted by length, padded batch by batch and averaged
as sentence-transformers does, without its tokenizer. Times are taken here.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

folder = Path(os.environ["BENCH_MODEL"])
dtype = getattr(torch, os.environ["BENCH_DTYPE"])
torch.set_num_threads(int(os.environ["BENCH_THREADS"]))


class Static(torch.nn.Module):
    """A table of vectors, whose rows are averaged."""

    def __init__(self) -> None:
        super().__init__()
        table = load_file(folder / "model.safetensors")["embeddings"].to(dtype)
        self.bag = torch.nn.EmbeddingBag.from_pretrained(table, mode="mean")

    def embed(self, texts):  # noqa: ANN001, ANN201
        """Texts as lists of ids -> `(N, D)`."""
        lengths = torch.tensor([0, *map(len, texts[:-1])])
        return self.bag(torch.tensor([each for text in texts for each in text]), lengths.cumsum(0))


class Encoder(torch.nn.Module):
    """Token vectors by transformers, averaged."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        version = tuple(map(int, transformers.__version__.split(".")[:2]))
        key = "dtype" if version >= (4, 56) else "torch_dtype"
        model = transformers.T5EncoderModel if kind == "t5" else transformers.AutoModel
        self.model = model.from_pretrained(folder, **{key: dtype}).eval()
        self.has_cache = getattr(self.model.config, "use_cache", None) is not None

    def embed(self, texts):  # noqa: ANN001, ANN201
        """Texts as lists of ids -> `(N, D)`."""
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        tokens = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        kept = mask[:, :, None].to(tokens.dtype)
        return (tokens * kept).sum(1) / kept.sum(1)


def embed(model, texts, batch):  # noqa: ANN001, ANN201
    """Embed all texts; the vectors are of unit length, in float32, in the order of the texts."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    vectors = [None] * len(texts)
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        rows = torch.nn.functional.normalize(model.embed([texts[index] for index in some]).float())
        for index, row in zip(some, rows, strict=True):
            vectors[index] = row
    return torch.stack(vectors)


kind = json.loads((folder / "config.json").read_text())["model_type"]
model = Static() if kind == "model2vec" else Encoder(kind)
print(
    json.dumps({"transformers": transformers.__version__, "torch": torch.__version__}), flush=True
)
for line in sys.stdin:
    asked = json.loads(line)
    texts = [list(map(int, text.split())) for text in asked["texts"]]
    with torch.inference_mode():
        began_s = time.perf_counter()
        tokens = 0
        while True:
            vectors = embed(model, texts, asked["batch"])
            tokens += sum(map(len, texts))
            spent_s = time.perf_counter() - began_s
            if spent_s >= asked["seconds"]:
                break
    answer = {"tokens_per_s": tokens / spent_s}
    if asked.get("vectors"):
        answer["embeddings"] = vectors.tolist()
    print(json.dumps(answer), flush=True)
