"""What crosses between an ingress and a replica comes out as it went in."""

import pickle

import pytest

from emberd.errors import EmberdError, every_error
from emberd.pool.job import Answer, Timing
from emberd.ray.crossing import Refused, Sent


def test_an_answer_crosses_as_one_buffer() -> None:
    answer = Answer(
        model="one",
        fragments=[b"[1,2]", b"", b"[3]"],
        dimensions=2,
        fingerprint="f",
        tokens=7,
        truncated=[2],
        timing=Timing(model_s=0.5),
        compute="fake f32",
    )

    sent = Sent.of(answer)

    assert sent.payload == b"[1,2][3]"
    assert pickle.loads(pickle.dumps(sent)).received() == answer  # noqa: S301


@pytest.mark.parametrize("cls", every_error(), ids=lambda cls: cls.code)
def test_an_error_crosses_as_its_class_and_its_words(cls: type[EmberdError]) -> None:
    error = cls("It failed.", hint="Do this.", field="texts")

    received = Refused.of(error).received()

    assert type(received) is cls
    assert (received.message, received.hint, received.field) == ("It failed.", "Do this.", "texts")
