"""OpenVINO with several batches at once: the same vectors, whichever stream a batch runs on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from openvino import CompiledModel

from emberd.backends.openvino.backend import OpenVINOBackend, OpenVINOEncoder
from emberd.backends.openvino.streams import (
    FEWEST_CORES,
    FEWEST_CORES_LARGE,
    LARGE_BYTES,
    Streams,
    streams_for,
)
from tests.backends.support import a_request, batch_of

TEXTS = [[2, *range(4, 4 + length), 3] for length in (1, 5, 3, 7)]
STREAMS = 2


@pytest.fixture
def encoder(tiny: Path, tmp_path: Path) -> OpenVINOEncoder:
    request = a_request(tiny, tmp_path / "cache", streams=STREAMS)
    return OpenVINOBackend().load(request)


def test_every_stream_gives_the_same_vectors(encoder: OpenVINOEncoder) -> None:
    assert encoder.streams == STREAMS
    batch = batch_of(*TEXTS)
    alone = encoder.encode_alone(*batch)

    with ThreadPoolExecutor(STREAMS) as threads:
        beside = list(threads.map(lambda _: encoder.encode(*batch), range(20)))

    for rows in beside:
        np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-6)


def test_a_result_stays_when_its_stream_runs_another_batch(encoder: OpenVINOEncoder) -> None:
    first = encoder.encode(*batch_of(TEXTS[0]))
    kept = first.copy()

    for _ in range(STREAMS + 1):
        encoder.encode(*batch_of(TEXTS[1]))

    assert (first == kept).all()


def test_a_model_that_cannot_be_divided_runs_batches_one_after_the_other(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def divide() -> CompiledModel:
        raise RuntimeError("no memory")

    encoder = OpenVINOBackend().load(a_request(tiny, tmp_path / "cache", streams=1))
    encoder._run_on = Streams(encoder._run_on._model, STREAMS, divide, lambda: None)
    batch = batch_of(*TEXTS)

    with ThreadPoolExecutor(STREAMS) as threads:
        rows = list(threads.map(lambda _: encoder.encode(*batch), range(6)))

    assert all((each == encoder.encode_alone(*batch)).all() for each in rows)
    assert [record.getMessage() for record in caplog.records] == [
        "Batches run one after the other: no memory"
    ]


def test_memory_of_the_file_is_given_back_when_the_last_batch_has_ended(
    encoder: OpenVINOEncoder,
) -> None:
    """After each one of these, as none runs beside another."""
    given_back = []
    divided = encoder._run_on._divide
    streams = Streams(encoder._run_on._model, STREAMS, divided, lambda: given_back.append(1))
    encoder._run_on = streams
    for _ in range(STREAMS):
        encoder.encode(*batch_of(TEXTS[0]))  # repacks weights, once for each stream
    before = len(given_back)

    encoder.encode(*batch_of(TEXTS[0]))

    assert len(given_back) == before + 1
    encoder.encode_alone(*batch_of(TEXTS[0]))
    after = len(given_back)
    assert after >= before + 2, "the first query repacks weights"
    encoder.encode_alone(*batch_of(TEXTS[0]))
    assert len(given_back) == after, "a query does not pay for it, but for the first"


def test_few_cores_share_each_batch() -> None:
    several = (1, FEWEST_CORES - 1, FEWEST_CORES, 16)
    without = [streams_for(cores, 10**8, with_amx=False) for cores in several]
    assert without == [1, 1, FEWEST_CORES, 16]
    assert [streams_for(cores, 10**8, with_amx=True) for cores in (1, 2, 16)] == [1, 2, 16]


@pytest.mark.parametrize("with_amx", [True, False])
def test_several_cores_share_each_batch_of_a_large_model(*, with_amx: bool) -> None:
    several = (1, 2, FEWEST_CORES_LARGE - 1, FEWEST_CORES_LARGE)
    streams = [streams_for(cores, LARGE_BYTES, with_amx=with_amx) for cores in several]
    assert streams == [1, 1, 1, FEWEST_CORES_LARGE]
