"""A model folder that is small and whole, in the layout of a Hub repository."""

from collections.abc import Mapping
from pathlib import Path

FILES: Mapping[str, bytes] = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": b"weights",
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "tokenizer_config.json": b"{}",
    "README.md": b"# A model\n",
}


def write(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write the files and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def cache(
    hub: Path,
    repository: str = "me/mine",
    commit: str = "c" * 40,
    revision: str | None = "main",
    files: Mapping[str, bytes] = FILES,
) -> Path:
    """Write a repository as the Hub's client keeps it: links to blobs, and a ref to the commit."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    blobs, snapshot = folder / "blobs", folder / "snapshots" / commit
    for number, (name, content) in enumerate(files.items()):
        blob, link = blobs / f"{commit[0]}{number}", snapshot / name
        write(blobs, {blob.name: content})
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    if revision:
        write(folder / "refs", {revision: commit.encode()})
    return snapshot
