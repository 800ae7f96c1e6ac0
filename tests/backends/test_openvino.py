"""OpenVINO's compiled models on disk, its light import, and its memory."""

import hashlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.backends.base import Encoder, LoadRequest, Precision
from emberd.backends.modules import Activation
from emberd.backends.openvino.backend import OpenVINOBackend
from emberd.backends.openvino.cache import _seal
from emberd.backends.openvino.processor import bf16_is_faster
from emberd.backends.openvino.runtime import choose_compute
from emberd.backends.tiny_bert import tiny_bert
from emberd.errors import BackendBrokenError, ModelLoadError
from emberd.vectors import Matrix
from tests.backends.support import a_request, batch_of

PAGE = 4096

# What a worker does, in a process of its own: prints a vector and the memory it took.
CHILD = """
import json, sys
from pathlib import Path
import numpy as np
from emberd.backends.base import LoadRequest
from emberd.backends.openvino.backend import OpenVINOBackend

assert "openvino" not in sys.modules
folder, cache, precision = sys.argv[1:]
request = LoadRequest(
    folder=Path(folder), pooling="mean", precision=precision, compute="f32",
    cache=Path(cache), cache_key="key",
)
encoder = OpenVINOBackend().load(request)
ids = np.array([[5, 6, 7, 8]], np.int32)
vector = encoder.encode(ids, np.ones_like(ids))[0]
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
resident_kb = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
print(json.dumps([vector.tolist(), resident_kb, "openvino_telemetry" in sys.modules]))
import openvino.tools.ovc  # the light import blocked it only meanwhile
"""


def start(folder: Path, cache: Path, precision: str = "f32") -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", CHILD, str(folder), str(cache), precision]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def answer(child: subprocess.Popen[bytes]) -> tuple[list[float], list[int], bool]:
    printed, _ = child.communicate(timeout=120)
    assert child.returncode == 0
    vector, resident_kb, telemetry = json.loads(printed)
    return vector, resident_kb, telemetry


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, and a cache with its compiled one."""
    folder = tmp_path_factory.mktemp("compiled")
    tiny_bert(folder / "tiny")
    OpenVINOBackend().load(a_request(folder / "tiny", folder / "cache"))
    return folder


@pytest.fixture
def cached(compiled: Path, tmp_path: Path) -> LoadRequest:
    """A request for that model, with a copy of the cache to spoil."""
    return a_request(compiled / "tiny", shutil.copytree(compiled / "cache", tmp_path / "cache"))


def encode(encoder: Encoder) -> Matrix:
    return encoder.encode(*batch_of([2, 5, 7, 3], [2, 9, 3]))


def blobs(cache: Path) -> list[Path]:
    """The compiled models; nothing unfinished may lie beside them."""
    files = sorted(cache.iterdir())
    assert {path.suffix for path in files} <= {".blob"}
    return files


def test_a_second_load_reads_no_weights_and_gives_the_same_vectors(
    tiny: Path, tmp_path: Path
) -> None:
    request = a_request(tiny, tmp_path / "cache", precision="4bit")
    first = encode(OpenVINOBackend().load(request))
    (tiny / "model.safetensors").unlink()

    second = encode(OpenVINOBackend().load(request))

    np.testing.assert_array_equal(first, second)


def test_python_is_free_while_a_compiled_model_is_imported(cached: LoadRequest) -> None:
    sealed = blobs(cached.cache)[0].read_bytes()
    said = []
    request = replace(cached, python_is_free=lambda: said.append(True))
    OpenVINOBackend().load(request)
    assert said == [True]

    blobs(cached.cache)[0].write_bytes(sealed[:-1])  # so that it is compiled first
    OpenVINOBackend().load(request)
    assert said == [True, True]


def test_a_loaded_model_survives_the_deletion_of_its_cache(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encoder = OpenVINOBackend().load(a_request(tiny, cache))
    before = encode(encoder)

    shutil.rmtree(cache)

    np.testing.assert_array_equal(encode(encoder), before)


def test_nobody_else_may_write_what_the_engine_imports(tiny: Path, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        OpenVINOBackend().load(a_request(tiny, tmp_path / "cache"))
    finally:
        os.umask(before)

    (blob,) = blobs(tmp_path / "cache")
    assert (blob.stat().st_mode & 0o777, blob.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_everything_that_makes_another_model_makes_another_file(tiny: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    requests = [
        a_request(tiny, cache),
        a_request(tiny, cache, cache_key="another"),
        a_request(tiny, cache, pooling="cls"),
        a_request(tiny, cache, precision="4bit"),
        a_request(tiny, cache, threads=1),
    ]

    for request in requests:
        OpenVINOBackend().load(request)

    assert len(blobs(cache)) == len(requests)


def rewrite(blob: Path, damage: Callable[[bytes], bytes]) -> None:
    """Put a damaged file in the place of one that may be mapped."""
    content = blob.read_bytes()
    blob.unlink()
    blob.write_bytes(damage(content))


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def zeroed_at_the_end(content: bytes) -> bytes:
    return content[:-4096] + bytes(4096)


def emptied(_: bytes) -> bytes:
    return b""


def of_three_bytes(_: bytes) -> bytes:
    return b"abc"


def of_63_bytes(content: bytes) -> bytes:
    return content[-63:]  # one less than a seal


def two_pages_swapped(content: bytes) -> bytes:
    """Swap two pages of weights that lie in a row."""
    pages = [content[at : at + PAGE] for at in range(0, len(content), PAGE)]
    middle = len(pages) // 2
    assert pages[middle] != pages[middle + 1]
    pages[middle], pages[middle + 1] = pages[middle + 1], pages[middle]
    return b"".join(pages)


def flips_in_two_pages_that_cancel_out(content: bytes) -> bytes:
    return nudged(content, len(content) // 2, len(content) // 2 + PAGE)


def flips_in_a_page_that_cancel_out(content: bytes) -> bytes:
    middle = len(content) // 2 // PAGE * PAGE
    return nudged(content, middle, middle + 800)


def nudged(content: bytes, up: int, down: int) -> bytes:
    """Add one to a byte and take it off another in the same place of its word: the sum stays."""
    changed = bytearray(content)
    up = next(at for at in range(up, len(content), 8) if changed[at] < 255)
    down = next(at for at in range(down + (up - down) % 8, len(content), 8) if changed[at] > 0)
    changed[up] += 1
    changed[down] -= 1
    return bytes(changed)


def one_bit_of_the_seal_flipped(content: bytes) -> bytes:
    return content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]


@pytest.mark.parametrize(
    "damage",
    [
        halved,
        one_bit_flipped,
        zeroed_at_the_end,
        emptied,
        of_three_bytes,
        of_63_bytes,
        two_pages_swapped,
        flips_in_two_pages_that_cancel_out,
        one_bit_of_the_seal_flipped,
    ],
)
def test_a_damaged_file_is_made_again(
    cached: LoadRequest, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    whole = encode(OpenVINOBackend().load(cached))
    (blob,) = blobs(cached.cache)
    rewrite(blob, damage)

    with caplog.at_level(logging.WARNING):
        again = encode(OpenVINOBackend().load(cached))

    np.testing.assert_array_equal(again, whole)
    assert "is damaged" in caplog.text
    (mended,) = blobs(cached.cache)
    before = mended.stat()
    np.testing.assert_array_equal(encode(OpenVINOBackend().load(cached)), whole)
    assert (mended.stat().st_ino, mended.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_only_the_hash_of_all_tells_is_found_after_the_first_answer_and_deleted(
    cached: LoadRequest,
) -> None:
    encoder = OpenVINOBackend().load(cached)
    whole = encode(encoder)
    assert encoder.audit() is None
    (blob,) = blobs(cached.cache)
    rewrite(blob, flips_in_a_page_that_cancel_out)
    damaged = OpenVINOBackend().load(cached)
    encode(damaged)

    said = damaged.audit()

    assert said is not None
    assert str(blob) in said
    assert blobs(cached.cache) == []
    mended = OpenVINOBackend().load(cached)
    np.testing.assert_array_equal(encode(mended), whole)
    assert mended.audit() is None


def test_what_could_not_be_deleted_is_hashed_before_it_is_used(
    cached: LoadRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = encode(OpenVINOBackend().load(cached))
    (blob,) = blobs(cached.cache)
    rewrite(blob, flips_in_a_page_that_cancel_out)
    monkeypatch.setattr(os, "access", lambda *_: False)  # as on a file system that is read-only

    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(encode(OpenVINOBackend().load(cached)), whole)

    assert "its hash is wrong" in caplog.text


def test_another_models_file_under_this_name_is_made_again(
    cached: LoadRequest, tmp_path: Path
) -> None:
    other = a_request(cached.folder, tmp_path / "other", precision="4bit", pooling="cls")
    whole = encode(OpenVINOBackend().load(cached))
    OpenVINOBackend().load(other)
    (blob,), (others,) = blobs(cached.cache), blobs(other.cache)
    rewrite(blob, lambda _: others.read_bytes())

    np.testing.assert_array_equal(encode(OpenVINOBackend().load(cached)), whole)


def test_a_file_with_a_right_seal_that_openvino_refuses_is_made_again(
    cached: LoadRequest,
) -> None:
    whole = encode(OpenVINOBackend().load(cached))
    (blob,) = blobs(cached.cache)
    nothing = np.zeros(64, np.uint8)
    seal = _seal(blob.name, nothing, hashlib.sha256(nothing.data).digest())
    rewrite(blob, lambda _: nothing.tobytes() + seal)

    np.testing.assert_array_equal(encode(OpenVINOBackend().load(cached)), whole)
    assert blob.stat().st_size > 1000


def test_files_of_other_versions_go_when_a_new_one_is_made(cached: LoadRequest) -> None:
    (blob,) = blobs(cached.cache)
    model_and_machine, _, _ = blob.stem.rpartition("-")
    old = blob.rename(blob.with_stem(f"{model_and_machine}-0123456789abcdef"))

    OpenVINOBackend().load(cached)

    assert not old.exists()
    assert blobs(cached.cache) == [blob]


def test_a_cache_that_cannot_be_written_is_done_without(
    cached: LoadRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = encode(OpenVINOBackend().load(cached))
    (tmp_path / "file").write_text("in the way")
    blocked = replace(cached, cache=tmp_path / "file" / "cache")

    with caplog.at_level(logging.WARNING):
        vectors = encode(OpenVINOBackend().load(blocked))

    np.testing.assert_array_equal(vectors, expected)
    assert "cannot be written" in caplog.text


def test_two_processes_may_fill_one_cache_at_once(tiny: Path, tmp_path: Path) -> None:
    children = [start(tiny, tmp_path / "cache") for _ in range(2)]

    (one, _, telemetry), (other, _, _) = map(answer, children)

    assert one == other
    assert not telemetry
    assert len(blobs(tmp_path / "cache")) == 1


@pytest.mark.slow
def test_a_process_stays_small_and_imports_no_telemetry(minilm: Path, tmp_path: Path) -> None:
    for moment in ("first load", "from the cache"):
        _, resident_kb, telemetry = answer(start(minilm, tmp_path, "4bit"))

        assert not telemetry
        assert all(kb < 200 * 1024 for kb in resident_kb), moment


def test_damaged_weights_are_refused_by_name(tiny: Path, tmp_path: Path) -> None:
    weights = tiny / "model.safetensors"
    weights.write_bytes(halved(weights.read_bytes()))

    with pytest.raises(ModelLoadError, match=r"model\.safetensors cannot be read"):
        OpenVINOBackend().load(a_request(tiny, tmp_path / "cache"))


@pytest.mark.parametrize(
    ("precision", "able", "faster", "chosen"),
    [
        ("4bit", ["FP32", "BF16"], True, "bf16"),
        ("4bit", ["FP32", "BF16"], False, "f32"),
        ("4bit", ["FP32", "FP16"], True, "f32"),
        ("bf16", ["FP32", "BF16"], True, "bf16"),
        ("f32", ["FP32", "BF16"], True, "f32"),
    ],
)
def test_auto_is_bf16_where_that_is_native_and_faster_but_not_for_full_precision(
    tmp_path: Path, precision: Precision, able: list[str], faster: bool, chosen: str
) -> None:
    request = a_request(tmp_path, tmp_path, precision=precision)

    assert choose_compute(request, able=able, bf16_is_faster=faster) == chosen


def test_arithmetic_that_the_processor_lacks_is_refused_with_what_it_has(tmp_path: Path) -> None:
    request = a_request(tmp_path, tmp_path, compute="f16")

    with pytest.raises(BackendBrokenError, match=r"no native f16 .* it has f32, bf16\."):
        choose_compute(request, able=["FP32", "BF16", "INT8"], bf16_is_faster=True)


@pytest.mark.parametrize(
    ("processor", "faster"),
    [
        ("vendor_id: AuthenticAMD flags: avx512_bf16", True),
        ("vendor_id: GenuineIntel flags: avx512_bf16", False),
        ("vendor_id: GenuineIntel flags: avx512_bf16 amx_bf16", True),
        ("", True),
    ],
)
def test_intel_does_bf16_faster_by_amx_only(processor: str, faster: bool) -> None:
    assert bf16_is_faster(processor) is faster


@pytest.mark.parametrize("name", ["GELU", "GELUTanh", "ReLU"])
def test_an_activation_is_its_formula(name: Activation) -> None:
    from openvino import Core, Model
    from openvino import opset15 as op

    from emberd.backends.openvino.graph import activate

    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)
    exact = {
        "GELU": [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x.tolist()],
        "GELUTanh": x * (1 + np.tanh(inner)) / 2,
        "ReLU": np.maximum(x, 0),
    }
    given = op.parameter([-1], np.float32)
    compiled = Core().compile_model(
        Model([activate(given, name)], [given], name), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )

    assert np.abs(compiled(x)[0] - exact[name]).max() < 1e-5
