"""Finds the files of one source on this machine, without the network or huggingface_hub.

A Hub repository is in the Hub's cache as `models--owner--name/snapshots/COMMIT`, and
`refs/REVISION` holds the commit of a branch or tag
(huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import hashlib
import json
import os
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

from emberd.errors import ModelLoadError
from emberd.files import delete_tree, is_file, is_folder, is_gone, is_link, read
from emberd.models.modules import old_layout
from emberd.registry.spec import Source, is_below

ONNX = "onnx"  # the backend that takes an ONNX file; all others take safetensors
ONNX_FILE = "onnx/model.onnx"  # where a repository on the Hub has it
SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
OTHER_TOKENIZERS = (
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model",
    "tokenizer.model",
)  # fmt: skip
GET_FILES = "Get it from where the model came from, or correct the path."
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def find_local(
    source: Source, hub: Path, last_folder: Path | None = None, *, backend: str = "auto"
) -> Path | None:
    """Return the folder that holds the complete model, or None if it is not all there.

    `last_folder` is where an installed package had it, because looking up a package takes 15 ms.
    The `backend` says which weights are needed.
    """
    if source.hf:
        folder = hub_snapshot(source.hf, source.revision or "main", hub)
        if folder and not weights(folder, backend):
            return None  # it was fetched in another format, by another tool or for another backend
    elif source.path:
        folder = Path(source.path)
    elif last_folder and is_complete(last_folder, backend):
        folder = last_folder
    else:
        folder = package_folder(source.package or "", backend)
    return folder if folder and is_complete(folder, backend) else None


def weights(folder: Path, backend: str) -> list[Path]:
    """Return the files in a folder that hold a model's weights for this backend."""
    return [path for path in folder.glob(_weights_like(backend)) if is_file(path)]


def are_weights(name: str, backend: str) -> bool:
    """Say whether a file of this name, relative to the model's folder, has such weights."""
    pattern = _weights_like(backend)
    return fnmatch(name, pattern) and name.count("/") == pattern.count("/")


def _weights_like(backend: str) -> str:
    return f"{ONNX_FILE}*" if backend == ONNX else "*.safetensors"


def hub_repository(repository: str, hub: Path) -> Path:
    """Return the folder of this repository in the Hub's cache."""
    return hub / f"models--{repository.replace('/', '--')}"


def hub_snapshot(repository: str, revision: str, hub: Path) -> Path | None:
    """Return the folder of this revision in the Hub's cache; it may hold only some of the files."""
    repo = hub_repository(repository, hub)
    try:
        commit = read(repo / "refs" / revision).decode().strip()
    except (OSError, ValueError):  # a damaged ref counts as missing
        commit = revision
    snapshot = repo / "snapshots" / commit
    return snapshot if is_below(commit) and is_folder(snapshot) else None


def package_folder(name: str, backend: str = "auto") -> Path | None:
    """Return the model folder inside an installed package, without running its code."""
    from importlib import metadata  # 35 ms; only package sources need it

    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return None
    configs = [file for file in files if file.name == "config.json" and is_below(str(file))]
    folders = [Path(str(file.locate())).parent for file in configs]
    return next((folder for folder in folders if is_complete(folder, backend)), None)


def is_complete(folder: Path, backend: str = "auto") -> bool:
    """Say whether config, tokenizer and all weight files are there; see `lacks`."""
    return lacks(folder, backend) is None


def lacks(folder: Path, backend: str = "auto") -> ModelLoadError | None:
    """Return what a folder lacks to be a complete model, as an error with its fix, or None.

    A folder is incomplete if a shard that the index names is missing, or if there are shards but no
    index, so that a stopped download never passes for a complete one. (The Hub's client links a
    file once all of it is there.)
    """
    lacks_weights = _lacks_onnx if backend == ONNX else _lacks_weights
    return lacks_description(folder) or lacks_weights(folder)


def lacks_description(folder: Path) -> ModelLoadError | None:
    """Return what a folder lacks besides weights, as an error with its fix, or None."""
    if not is_folder(folder):
        if is_gone(folder):
            return ModelLoadError(f"The folder {folder} does not exist.", hint="Correct the path.")
        return ModelLoadError(
            f"{folder} cannot be read.", hint="Correct the path, or fix the permissions."
        )
    if not is_file(folder / "config.json"):
        elsewhere = next(iter(sorted(folder.glob("0_*/config.json"))), None)
        if elsewhere:
            return old_layout(folder, elsewhere.parent.name)
        return ModelLoadError(f"{folder} has no config.json.", hint=GET_FILES)
    return _lacks_tokenizer(folder)


def _lacks_tokenizer(folder: Path) -> ModelLoadError | None:
    if is_file(folder / "tokenizer.json"):
        return None
    others = [name for name in OTHER_TOKENIZERS if is_file(folder / name)]
    if not others:
        return ModelLoadError(f"{folder} has no tokenizer.json.", hint=GET_FILES)
    return ModelLoadError(
        f"{folder} has no tokenizer.json, only {', '.join(others)}.",
        hint=f"Make one where transformers is installed: `{_how_to_convert(folder)}`.",
    )


def _lacks_weights(folder: Path) -> ModelLoadError | None:
    index = folder / "model.safetensors.index.json"
    if is_file(index):
        try:
            shards = set(json.loads(read(index))["weight_map"].values())
            gone = sorted(shard for shard in shards if not is_file(folder / shard))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None  # complete but damaged: loading will say so
        if gone:
            return ModelLoadError(
                f"{', '.join(gone)[:200]} is missing from {folder}.", hint=GET_FILES
            )
        return None
    patterns = ("*.safetensors", "*.bin", "*.onnx", "onnx/*.onnx", "*.gguf")
    weights = [path for pattern in patterns for path in folder.glob(pattern) if is_file(path)]
    if any(not SHARD.search(path.name) for path in weights):
        return None
    missing = f"{index.name}, which belongs to its parts" if weights else "model.safetensors"
    return ModelLoadError(f"{folder} has no {missing}.", hint=GET_FILES)


def _lacks_onnx(folder: Path) -> ModelLoadError | None:
    """What an ONNX file names beside it is looked at when it is loaded (see `onnx_data`)."""
    if is_file(folder / ONNX_FILE):
        return None
    names = sorted({*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")})
    others = ", ".join(str(path.relative_to(folder)) for path in names)
    if not others:
        return ModelLoadError(f"{folder} has no {ONNX_FILE}.", hint=GET_FILES)
    return ModelLoadError(
        f"{folder} has no {ONNX_FILE}, only {others}.",
        hint=f"If that is the model you want, move it, with any data beside it, to {ONNX_FILE}.",
    )


def _how_to_convert(folder: Path) -> str:
    """Return the command that makes a tokenizer.json from what the folder has instead."""
    name = repr(str(folder))
    code = (
        "from transformers import AutoTokenizer;"
        f" AutoTokenizer.from_pretrained({name}).save_pretrained({name})"
    )
    return shlex.join(["python", "-c", code])


def leads_out(folder: Path, root: Path) -> Path | None:
    """Return a link in a model's folder that leads out of `root`, or None.

    A repository's `blobs` may itself be a link elsewhere (to a larger disk); the user made that.
    """
    inside = (root.resolve(), (root / "blobs").resolve())
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            found = Path(at, name)
            if is_link(found) and not any(map(found.resolve().is_relative_to, inside)):
                return found
    return None


def has_digest(file: Path, digest: str) -> bool:
    """Say whether a file has this digest: a SHA-256 or, for a small file, git's blob id."""
    with file.open("rb") as content:
        if len(digest) == 64:
            return hashlib.file_digest(content, "sha256").hexdigest() == digest
        data = content.read()
        named = b"blob %d\0%b" % (len(data), data)
        return hashlib.sha1(named, usedforsecurity=False).hexdigest() == digest


def digest_kept(file: Path) -> str | None:
    """Return the digest that the Hub stated at the download, which is the name of the blob."""
    name = file.readlink().name if is_link(file) else ""
    return name if DIGEST.fullmatch(name) else None


def discard(file: Path) -> None:
    """Delete a file of a snapshot together with its blob."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def remove_repository(repository: str, hub: Path) -> int:
    """Delete a repository from the Hub's cache, unfinished files too; return the freed bytes.

    It is renamed first, so that a removal that was stopped leaves nothing that looks like a model.
    The next removal finishes it.

    Raises:
        OSError: something could not be deleted.
    """
    folder = hub_repository(repository, hub)
    leaving = folder.with_name(f".{folder.name}.removed")
    freed = _delete(leaving)
    if folder.exists():
        folder.rename(leaving)
        freed += _delete(leaving)
    delete_tree(hub / ".locks" / folder.name, ignore_errors=True)
    return freed


def _delete(folder: Path) -> int:
    if not folder.exists():
        return 0
    statuses = [path.lstat() for path in (folder, *folder.rglob("*"))]
    delete_tree(folder)
    return 512 * sum({status.st_ino: status.st_blocks for status in statuses}.values())
