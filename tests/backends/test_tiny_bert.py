"""The tiny model that tests load instead of a real one."""

from pathlib import Path

from emberd.backends.tiny_bert import tiny_bert
from tests.backends.support import tokenize


def test_the_tiny_model_is_the_same_every_time_and_has_a_tokenizer(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    tiny_bert(one)
    tiny_bert(other)

    weights = "model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    assert tokenize(one, ["the cat eats", "what"]) == [[2, 10, 6, 8, 3], [2, 1, 3]]
