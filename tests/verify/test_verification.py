"""Which checks run and what each is given, with a worker that answers at once.

What real workers make of real models: `test_verify`, `test_tampering` and `test_wrong_use`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emberd.backends import plugins
from emberd.backends.tiny_bert import tiny_bert
from emberd.config.load import Config
from emberd.errors import (
    BackendMissingError,
    BadVectorError,
    DeadlineError,
    EmberdError,
    ModelLoadError,
)
from emberd.hashing import hash_file
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry, LockFile
from emberd.spaces.probes import PROBES, encode
from emberd.vectors import Matrix, normalize
from emberd.verify import agreement, memory, verification
from emberd.verify.finding import Finding
from emberd.verify.reference import Reference
from tests.backends.references import change_json
from tests.verify.fake_workers import MAX_TOKENS, FakeWorkers, direction, vectors_of
from tests.verify.support import verify

REFERENCE_TEXTS = ("A text with a reference.", "Another one.")


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> FakeWorkers:
    """The workers that verify starts."""
    fakes = FakeWorkers()
    for module in (verification, agreement):
        monkeypatch.setattr(module, "run_in_fresh_worker", fakes)
    return fakes


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    """A user's own model, whose folder states its pooling."""
    folder = tmp_path / "model"
    tiny_bert(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
    return ModelSpec(
        name="m", sources=(Source(path=str(folder)),), dimensions=64, pooling="mean",
        backend="openvino", matryoshka=(32,),
    )  # fmt: skip


def folder_of(spec: ModelSpec) -> Path:
    return Path(spec.sources[0].path or "")


def without_pooling(spec: ModelSpec) -> None:
    """Let the folder state no pooling."""
    (folder_of(spec) / "1_Pooling/config.json").unlink()


def quantize(spec: ModelSpec) -> None:
    """Let the folder say that its weights are quantized."""
    file = folder_of(spec) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "quantization": {"bits": 4}}))


def by_check(findings: Sequence[Finding]) -> dict[str, Finding]:
    assert all(finding.detail for finding in findings)
    return {finding.check: finding for finding in findings}


def verdicts(findings: Sequence[Finding]) -> dict[str, str]:
    return {finding.check: finding.verdict for finding in findings}


def unrelated(texts: Sequence[str]) -> Matrix:
    """Return vectors in which paraphrases are no nearer to each other than other texts."""
    return np.concatenate([direction(text) for text in texts])


def moved(texts: Sequence[str]) -> Matrix:
    """Return vectors whose cosine to those of `vectors_of` is about 0.95."""
    own = vectors_of(texts)
    return normalize(own + 0.33 * unrelated([f"{text}!" for text in texts]))


def test_a_model_in_order_passes_with_one_worker(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    found = verify(config, spec, full=False)

    assert verdicts(found) == {
        "files": "skipped",  # first use
        "published hashes": "skipped",  # a folder of one's own
        "load": "ok",
        "space": "ok",
        "dimensions": "ok",
        "finite": "ok",
        "unit length": "ok",
        "alone = batch = shuffled": "ok",
        "shortest text": "ok",
        "longest text": "ok",
        "folder": "ok",
        "pooling": "ok",
        "paraphrases": "ok",
        "precision loss": "skipped",
        "reference vectors": "skipped",
        "backends agree": "skipped",
    }
    assert by_check(found)["dimensions"].detail == "64, 32"
    assert by_check(found)["longest text"].detail.startswith(f"cut at {MAX_TOKENS} tokens")
    assert by_check(found)["pooling"].detail == "mean, as 1_Pooling/config.json says"
    assert workers.ran == [spec]
    remembered = LockFile(config.homes.state).read()["m"]
    assert remembered.fingerprint == "first"
    assert set(remembered.files) >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_files_that_changed_are_reported_until_they_are_accepted(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    verify(config, spec, full=False)
    before = LockFile(config.homes.state).read()["m"]
    with (folder_of(spec) / "tokenizer.json").open("a") as file:
        file.write(" ")

    once, again = (by_check(verify(config, spec, full=False))["files"] for _ in range(2))

    assert once == again
    assert (once.verdict, once.detail) == ("failed", "tokenizer.json has changed")
    assert LockFile(config.homes.state).read()["m"] == before


def test_vectors_that_moved_are_reported_until_they_are_accepted(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    workers.leave = lambda entry: replace(
        entry, fingerprint="first", probes=encode(vectors_of(PROBES))
    )
    verify(config, spec, full=False)
    workers.give = lambda _, texts: moved(texts)
    workers.leave = lambda entry: replace(
        entry,
        changed_to=replace(entry, fingerprint="second", probes=encode(moved(PROBES))),
        cosine=0.95,
    )

    space = by_check(verify(config, spec, full=False))["space"]

    assert space.verdict == "failed"
    assert space.detail.startswith("second, previously first")
    remembered = LockFile(config.homes.state).read()["m"]
    assert (remembered.fingerprint, remembered.now.fingerprint) == ("first", "second")


def test_without_files_nothing_is_loaded(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    missing = replace(spec, sources=(Source(path=str(folder_of(spec) / "nowhere")),))

    found = verify(config, missing, full=False)

    assert verdicts(found) == {"load": "failed", "all other checks": "skipped"}
    assert found[0].advice
    assert not workers.ran


def test_a_model_that_does_not_load_has_its_files_checked(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    workers.refuse = lambda _: ModelLoadError("why", hint="what to do")

    found = verify(config, spec, full=False)

    assert [*verdicts(found)] == ["files", "published hashes", "load", "all other checks"]
    load = by_check(found)["load"]
    assert (load.verdict, load.detail, load.advice) == ("failed", "why", "what to do")


def test_an_error_in_place_of_an_answer_ends_the_checks(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    def fail(_: ModelSpec, texts: Sequence[str]) -> Matrix:
        raise BadVectorError("NaN")

    workers.give = fail

    found = verify(config, spec, full=False)

    assert [*verdicts(found)][-2:] == ["answers", "all other checks"]
    answers = by_check(found)["answers"]
    assert (answers.verdict, answers.detail) == ("failed", "NaN")
    assert "models.m" in answers.advice


def test_a_damaged_compiled_model_fails_beside_what_it_answered(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    workers.damage = "a changed byte"

    found = by_check(verify(config, spec, full=False))

    assert (found["compiled model"].verdict, found["load"].verdict) == ("failed", "ok")
    assert found["compiled model"].detail == "a changed byte"


def test_without_a_stated_pooling_all_are_tried(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    without_pooling(spec)
    workers.refuse = lambda variant: ModelLoadError("no") if variant.pooling == "last" else None
    alike = by_check(verify(config, spec, full=False))["pooling"]
    tried = {variant.pooling for variant in workers.ran}
    workers.give = lambda variant, texts: (
        vectors_of(texts) if variant.pooling == "cls" else unrelated(texts)
    )
    wrong = by_check(verify(config, spec, full=False))["pooling"]

    assert tried == {"mean", "cls", "last"}
    assert alike.verdict == "ok"
    assert "with last" not in alike.detail
    assert wrong.verdict == "warning"
    assert "it may be cls" in wrong.advice


def test_precision_is_compared_with_the_same_weights_in_f32(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    bf16 = replace(spec, precision="bf16")

    same = by_check(verify(config, bf16, full=False))["precision loss"]
    full = workers.ran[-1]
    workers.give = lambda variant, texts: (
        vectors_of(texts) if variant.precision == "f32" else moved(texts)
    )
    lossy = by_check(verify(config, bf16, full=False))["precision loss"]

    assert (full.precision, full.compute) == ("f32", "f32")
    assert (same.verdict, lossy.verdict) == ("ok", "failed")


def test_a_model_that_does_not_load_in_f32_skips_the_comparisons(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "reference_for", lambda *_: reference_for(spec))
    workers.refuse = lambda variant: (
        ModelLoadError("no room") if variant.precision == "f32" else None
    )

    found = by_check(verify(config, replace(spec, precision="bf16"), full=False))

    for check in ("precision loss", "reference vectors"):
        assert (found[check].verdict, found[check].detail) == (
            "skipped",
            "not possible in f32: no room",
        )


def test_quantized_weights_alone_have_nothing_to_compare_with(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    quantize(spec)

    found = by_check(verify(config, replace(spec, precision="4bit"), full=False))

    assert {found[check].verdict for check in ("precision loss", "reference vectors")} == {
        "skipped"
    }
    assert len(workers.ran) == 1


def reference_for(spec: ModelSpec, *, most_tokens: int = 10) -> Reference:
    """Return a reference for the weights of this model."""
    sha256 = hash_file(folder_of(spec) / "model.safetensors", None).sha256
    return Reference("it", sha256, REFERENCE_TEXTS, most_tokens, vectors_of(REFERENCE_TEXTS))


def test_known_weights_have_to_give_the_shipped_vectors(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check() -> Finding:
        return by_check(verify(config, spec, full=False))["reference vectors"]

    monkeypatch.setattr(verification, "reference_for", lambda *_: reference_for(spec))
    right = check()
    workers.give = lambda _, texts: moved(texts)
    wrong = check()
    monkeypatch.setattr(
        verification, "reference_for", lambda *_: reference_for(spec, most_tokens=MAX_TOKENS + 1)
    )
    cut = check()

    assert (right.verdict, wrong.verdict, cut.verdict) == ("ok", "failed", "skipped")


def test_every_other_backend_is_compared_or_says_why_not(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["agrees", "differs", "fails", "is slow", "not here", "openvino", "refuses"]
    monkeypatch.setattr(plugins, "names", lambda: names)
    errors: dict[str, EmberdError] = {
        "not here": BackendMissingError("it is not here"),
        "refuses": ModelLoadError("it runs others"),
        "is slow": DeadlineError("no answer"),
        "fails": BadVectorError("NaN", hint="report it"),
    }
    workers.refuse = lambda variant: errors.get(variant.backend)
    workers.give = lambda variant, texts: (
        moved(texts) if variant.backend == "differs" else vectors_of(texts)
    )

    found = [row for row in verify(config, spec, full=True) if row.check == "backends agree"]

    assert [(row.verdict, row.detail.partition(":")[0]) for row in found] == [
        ("ok", "agrees"), ("failed", "differs"), ("failed", "fails"), ("skipped", "is slow"),
        ("skipped", "not here"), ("skipped", "refuses"),
    ]  # fmt: skip
    skipped = [row.detail.partition(": ")[2] for row in found if row.verdict == "skipped"]
    assert skipped == [
        "not compared: no answer", "not compared: it is not here", "not compared: it runs others",
    ]  # fmt: skip
    assert (found[2].detail, found[2].advice) == ("fails: NaN", "report it")
    assert [variant.backend for variant in workers.ran] == [
        "openvino", "openvino", "agrees", "differs", "fails", "is slow", "not here", "refuses",
    ]  # fmt: skip


def test_backends_are_compared_up_to_the_longest_text_alone_and_in_batches(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino", "other"])
    asked: list[Sequence[str]] = []

    def give(variant: ModelSpec, texts: Sequence[str]) -> Matrix:
        if variant.backend == "other":
            asked.append(texts)
        return vectors_of(texts)

    workers.give = give

    agree = by_check(verify(config, spec, full=True))["backends agree"]

    *alone, batch = asked
    assert [list(texts) for texts in alone] == [[text] for text in batch]
    assert max(len(text.split()) for text in batch) >= MAX_TOKENS
    assert f"of {len(batch)} texts of up to {MAX_TOKENS} tokens" in agree.detail


@pytest.mark.parametrize("together", [True, False])
def test_one_text_that_moves_on_another_backend_fails(
    together: bool,
    config: Config,
    spec: ModelSpec,
    workers: FakeWorkers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino", "other"])

    def give(variant: ModelSpec, texts: Sequence[str]) -> Matrix:
        vectors = vectors_of(texts)
        if variant.backend == "other" and (len(texts) > 1) is together:
            vectors[-1] = moved(texts)[-1]
        return vectors

    workers.give = give

    assert by_check(verify(config, spec, full=True))["backends agree"].verdict == "failed"


def test_a_long_context_is_compared_up_to_a_bound(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino", "other"])
    monkeypatch.setattr(agreement, "MOST_TOKENS", MAX_TOKENS - 8)

    verify(config, spec, full=True)

    limits = {variant.backend: variant.max_tokens for variant in workers.ran[1:]}
    assert limits == {"openvino": MAX_TOKENS - 8, "other": MAX_TOKENS - 8}


def test_a_model_too_big_for_the_free_memory_is_not_compared(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino", "other"])
    monkeypatch.setattr(memory, "WORKER_BYTES", 2**60)

    found = by_check(verify(config, replace(spec, precision="4bit"), full=True))

    for check in ("backends agree", "precision loss"):
        assert found[check].verdict == "skipped"
        assert "of memory" in found[check].detail
    assert "not compared" in found["backends agree"].detail
    assert len(workers.ran) == 1


def test_a_single_backend_has_none_to_agree_with(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino"])

    found = by_check(verify(config, spec, full=True))["backends agree"]

    assert found.verdict == "skipped"
    assert "only openvino" in found.detail


def refuse_some(texts: Sequence[str]) -> Matrix:
    """Do as a static model does that does not know the words of some texts."""
    if set(texts) & {"", "7", PROBES[5], "moved"}:
        raise BadVectorError("no usable vector")
    return vectors_of(texts)


def test_a_static_model_may_refuse_texts_of_which_it_knows_no_token(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "names", lambda: ["openvino", "other"])
    workers.give = lambda _, texts: refuse_some(texts)
    change_json(folder_of(spec) / "config.json", model_type="model2vec")

    found = by_check(verify(config, replace(spec, precision="bf16"), full=True))

    assert {row.verdict for row in found.values()} == {"ok", "skipped"}
    assert "refused" in found["shortest text"].detail
    for check in ("space", "paraphrases", "precision loss", "backends agree"):
        assert found[check].verdict == "ok"


def test_a_longest_text_without_an_answer_in_time_is_not_checked(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    def give(_: ModelSpec, texts: Sequence[str]) -> Matrix:
        if len(texts[0].split()) == MAX_TOKENS + 88:
            raise DeadlineError("no answer")
        return vectors_of(texts)

    workers.give = give

    found = by_check(verify(config, spec, full=False))

    assert found["longest text"].verdict == "skipped"
    assert f"{MAX_TOKENS} tokens" in found["longest text"].detail
    assert "failed" not in {row.verdict for row in found.values()}


def test_any_other_model_may_refuse_none(
    config: Config, spec: ModelSpec, workers: FakeWorkers
) -> None:
    workers.give = lambda _, texts: refuse_some(texts)

    assert by_check(verify(config, spec, full=False))["answers"].verdict == "failed"


def test_a_lock_that_cannot_be_written_is_a_warning(
    config: Config, spec: ModelSpec, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LockFile, name: str, entry: LockEntry) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LockFile, "put", fail)

    found = by_check(verify(config, spec, full=False))

    assert (found["lock"].verdict, found["load"].verdict) == ("warning", "ok")
