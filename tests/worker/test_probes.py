"""The probe texts that a model embeds when it is loaded."""

from pathlib import Path

import numpy as np

from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.spaces.probes import PROBES
from emberd.worker.probes import embed_probes
from emberd.worker.tokenizer import Tokenizer
from tests.backends.references import TINY
from tests.backends.support import a_request


def test_a_probe_of_unknown_tokens_has_no_vector_and_the_others_keep_their_place(
    tmp_path: Path,
) -> None:
    folder = TINY / "model2vec"
    tokenizer = Tokenizer(folder, 512, only_known=True)
    encoder = OpenVINOBackend().load(a_request(folder, tmp_path, compute="f32"))

    probes = embed_probes(tokenizer, encoder)

    known = [bool(text.ids) for text in tokenizer.encode(PROBES)]
    assert probes.shape == (len(PROBES), 64)
    assert not all(known)
    assert np.linalg.norm(probes, axis=1).round(5).tolist() == [float(each) for each in known]
