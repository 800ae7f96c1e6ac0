"""The files of a model in the Hub's cache, compared with the hashes that name their blobs."""

import hashlib
from pathlib import Path

import pytest

from emberd.models.files import hash_files
from emberd.registry.spec import Source
from emberd.verify.files import Files, check_published
from tests import model_folder

LARGE, SMALL = "model.safetensors", "config.json"
CONTENT = {LARGE: b"weights", SMALL: b"{}", "README.md": b"# A model"}


def git_sha1(content: bytes) -> str:
    """Return the id that git gives a file."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()  # noqa: S324


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A snapshot as huggingface_hub makes it: links to blobs, and a file of one's own."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    names = {LARGE: hashlib.sha256(CONTENT[LARGE]).hexdigest(), SMALL: git_sha1(CONTENT[SMALL])}
    model_folder.write(blobs, {name: CONTENT[file] for file, name in names.items()})
    model_folder.write(snapshot, {"README.md": CONTENT["README.md"]})
    for file, name in names.items():
        (snapshot / file).symlink_to(blobs / name)
    return again(snapshot)


def again(snapshot: Path) -> Files:
    """Hash a snapshot."""
    return Files(Source(hf="me/mine"), snapshot, "openvino", hash_files(snapshot, ["*"], known={}))


def test_files_that_were_published_like_this_pass(files: Files) -> None:
    finding = check_published(files, "mine")

    assert (finding.verdict, finding.advice) == ("ok", "")
    assert finding.detail.startswith("2 files")  # nobody published a hash of the third


@pytest.mark.parametrize("changed", [LARGE, SMALL])
def test_a_file_that_was_changed_is_named(changed: str, files: Files) -> None:
    (files.folder / changed).resolve().write_bytes(b"other content")

    finding = check_published(again(files.folder), "mine")

    assert finding.verdict == "failed"
    assert finding.detail.startswith(f"{changed}:")
    assert "`emberd pull mine`" in finding.advice


def test_weights_are_quantized_if_a_readable_config_says_so(files: Files) -> None:
    config = (files.folder / SMALL).resolve()

    for content, expected in ((b'{"quantization": {}}', True), (b"{}", False), (b"{broken", False)):
        config.write_bytes(content)
        assert files.are_quantized is expected
