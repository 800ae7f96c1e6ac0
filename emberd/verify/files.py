"""Hashes a model's files again in full, and compares them with the lock and with their publisher.

Size and mtime are not trusted here, because someone who tampers with a file can keep both.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from emberd.backends import plugins
from emberd.hashing import FileHash
from emberd.installing import pip
from emberd.models.files import hash_files
from emberd.models.local import find_local
from emberd.models.sources import locate
from emberd.registry.spec import ModelSpec, Source
from emberd.spaces.lock import LockEntry
from emberd.verify.finding import Finding, judged

SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a model's folder that a backend uses, hashed just now."""

    source: Source
    folder: Path
    backend: str
    hashes: Mapping[str, FileHash]

    @property
    def are_quantized(self) -> bool:
        """Whether the weights in the files are quantized."""
        with suppress(OSError, ValueError):
            config = json.loads((self.folder / "config.json").read_bytes())
            return isinstance(config, dict) and "quantization" in config
        return False

    @property
    def sha256_of_weights(self) -> str | None:
        """The hash of the weights, if they are a single file."""
        weights = self.hashes.get("model.safetensors")
        return weights.sha256 if weights else None

    def how_to_restore(self, name: str) -> str:
        """Say how to get the published files of model `name` back."""
        if self.source.hf:
            return f"run `emberd pull {name}`"
        if self.source.package:
            words = ("--force-reinstall", "--no-deps", self.source.package)
            return f"run `{pip('install', *words)}`"
        return f"restore them in {self.folder}"

    def as_entry(self, before: LockEntry | None = None) -> LockEntry:
        """Return the lock entry that makes a worker use these files and hashes."""
        if before is None:
            return LockEntry(source=str(self.source), folder=str(self.folder), files=self.hashes)
        now = replace(before.now, folder=str(self.folder), files=self.hashes)
        return replace(before, changed_to=now) if before.changed_to else now


def find_files(spec: ModelSpec, hub: Path, before: LockEntry | None) -> Files:
    """Find a model's files as its next start will, downloading them if needed, and hash them.

    Raises:
        SourceError: they are not here and cannot be downloaded.
        BackendError: the backend, which says which files it uses, is missing or broken.
    """
    name = plugins.resolve(spec.backend)
    patterns = plugins.load(name).files
    located = locate(spec, hub=hub, files=patterns, before=before)
    return _read(located.source, located.folder, name, patterns)


def find_full_precision(spec: ModelSpec, hub: Path, files: Files) -> Files | None:
    """Return the first files that are not quantized: these, or those of another source here."""
    patterns = plugins.load(files.backend).files
    others = (
        _read(source, folder, files.backend, patterns)
        for source in spec.sources
        if source != files.source and (folder := find_local(source, hub, backend=files.backend))
    )
    return next((found for found in (files, *others) if not found.are_quantized), None)


def _read(source: Source, folder: Path, backend: str, patterns: Sequence[str]) -> Files:
    return Files(source, folder, backend, hash_files(folder, patterns, known={}))


def check_unchanged(files: Files, before: LockEntry | None, name: str) -> Finding:
    """Compare with the hashes in the lock, and name each file that differs."""
    if before is None:
        return Finding("files", "skipped", "first use on this machine: nothing to compare with")
    differences = differences_from(files, before)
    return judged(
        "files",
        not differences,
        "; ".join(differences) or f"{len(files.hashes)} files, all as recorded in lock.json",
        f"If you did not change them, {files.how_to_restore(name)}. If you did, accept the change"
        f" with `emberd verify --accept {name}`.",
    )


def differences_from(files: Files, accepted: LockEntry) -> list[str]:
    """Say for each file that is not as accepted how it differs from that."""
    return list(_differences(files, accepted))


def _differences(files: Files, accepted: LockEntry) -> Iterator[str]:
    same_patterns = accepted.backend == files.backend  # another backend may use other files
    for name in sorted({*files.hashes, *accepted.files}):
        if name not in accepted.files:
            if same_patterns:
                yield f"{name} is new"
        elif name not in files.hashes:
            if same_patterns or not (files.folder / name).is_file():
                yield f"{name} is missing"
        elif files.hashes[name].sha256 != accepted.files[name].sha256:
            yield f"{name} has changed"


def check_published(files: Files, name: str) -> Finding:
    """Compare with the hashes that the Hub or the package index published."""
    check = "published hashes"
    published = {**_of_package(files), **_of_hub_cache(files)}
    if not published:
        why = {
            files.source.hf: "the Hub's cache has no hashes here: its files are not links",
            files.source.package: "the package was installed without a list of hashes",
            files.source.path: "a folder of your own, so no hashes are published",
        }
        return Finding(check, "skipped", next(why[place] for place in why if place))
    wrong = [file for file, fits in published.items() if not fits]
    origin = f"the package {files.source.package}" if files.source.package else "the Hub"
    return judged(
        check,
        not wrong,
        f"{', '.join(wrong)}: not what {origin} published"
        if wrong
        else f"{len(published)} files as {origin} published them",
        f"To get the right files back, {files.how_to_restore(name)}.",
    )


def _of_hub_cache(files: Files) -> dict[str, bool]:
    """Say whether each file has the hash that names the blob it links to.

    That is the SHA-256 of a large file, and git's SHA-1 of a small one
    (huggingface.co/docs/huggingface_hub/guides/manage-cache).
    """
    fits = {}
    for name, found in files.hashes.items():
        path = files.folder / name
        blob = path.resolve().name if path.is_symlink() else ""
        if SHA256.fullmatch(blob):
            fits[name] = found.sha256 == blob
        elif GIT_SHA1.fullmatch(blob):
            fits[name] = _git_sha1(path.read_bytes()) == blob
    return fits


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _of_package(files: Files) -> dict[str, bool]:
    """Say whether each file has the hash in the RECORD of the package it came with.

    The RECORD is found beside the files, which may be among another interpreter's packages.
    """
    if not files.source.package:
        return {}
    around = [str(folder) for folder in files.folder.parents]
    packages = metadata.distributions(name=files.source.package, path=around)
    recorded = {
        Path(str(file.locate())): file.hash
        for package in packages
        for file in package.files or ()
        if file.hash and file.hash.mode == "sha256"
    }
    fits = {}
    for name, found in files.hashes.items():
        if stated := recorded.get(files.folder / name):
            digest = base64.urlsafe_b64encode(bytes.fromhex(found.sha256)).decode().rstrip("=")
            fits[name] = digest == stated.value
    return fits
