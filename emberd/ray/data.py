"""The parts of `emberd embed-files` on a cluster: what is missing is divided among its nodes.

Every node reads the inputs and writes its parts itself, so they must be at the same paths
everywhere, as on a shared file system. The parts are those that one machine would write, and so a
run may be stopped here and go on there.
"""

import json
import logging
import secrets
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data
from ray.exceptions import RayError

from emberd.config.load import Config
from emberd.corpus.job import Job, ProgressCallback
from emberd.corpus.manifest import MALFORMED, NAME, Manifest
from emberd.corpus.parts import Counts, write_parts
from emberd.errors import EmberdError, StoreError, WorkerCrashedError
from emberd.migrate.embedding import PoolEmbedder, Target
from emberd.ray.cluster import AGAIN, check_alike, joined, places, reason_of
from emberd.ray.configuration import at_home, without_secrets
from emberd.ray.crossing import Refused

if TYPE_CHECKING:
    from pathlib import Path

    Columns = dict[str, np.ndarray[Any, Any]]


class Writer:
    """What an actor does: it embeds whole parts, in a worker of its own."""

    def __init__(self, folder: "Path", target: Target, config: Config, run: str) -> None:
        self._folder = folder
        self._target = target
        self._run = run
        self._manifest: Manifest | None = None  # not read yet
        self._pool = PoolEmbedder(at_home(config)).__enter__()  # until the actor's process ends

    def __call__(self, batch: "Columns") -> "Columns":
        """Write the part that is named; return as JSON what was counted, or why it is not there."""
        (name,) = batch["name"].tolist()
        try:
            said = asdict(self._write(name))
        except EmberdError as error:
            said = asdict(Refused.of(error))
        return {"name": batch["name"], "said": np.array([json.dumps(said)])}

    def _write(self, name: str) -> Counts:
        manifest = self._manifest or self._begin()
        part = next((part for part in manifest.parts if part.name == name), None)
        if part is None:
            raise self._unshared("it is of another job")
        return dict(write_parts(self._folder, manifest, [part], self._pool, self._target))[name]

    def _begin(self) -> Manifest:
        """Return what the folder is to hold, once this node may write into it."""
        try:
            manifest = Manifest.from_json((self._folder / NAME).read_text())
        except (OSError, *MALFORMED) as error:
            raise self._unshared(getattr(error, "strerror", None) or "it is damaged") from None
        check_alike(self._run, self._target.model, self._pool)
        self._manifest = manifest
        return manifest

    def _unshared(self, why: str) -> StoreError:
        return StoreError(
            f"{self._folder / NAME} cannot be used on {socket.gethostname()}: {why}.",
            hint="The output folder and the inputs must be at the same paths on every node, as on a"
            " shared file system.",
        )


def run(
    job: Job, target: Target, config: Config, progress: ProgressCallback, *, address: str
) -> None:
    """Write every part that is not there, with as many actors as the cluster has places.

    Args:
        job: the folder, which every node must see at the same path.
        target: the space of the vectors; a node whose model is in another one fails.
        config: the settings, for every node.
        progress: called with the rows of the parts that are done, and all rows.
        address: where the cluster is; `auto` finds the one that this machine is part of.

    Raises:
        NoServerError: there is no cluster at that address.
        WorkerCrashedError: the cluster has lost a node, and no other can go on.
        EmberdError: as `write_parts`, of the first part that failed.
    """
    missing = [{"name": part.name} for part in job.manifest.parts if part.name not in job.done]
    rows = job.counts.rows
    progress(rows, job.manifest.rows)
    if not missing:
        return
    try:
        with joined(address):
            count, takes = places()
            logging.getLogger("ray.data").setLevel(logging.ERROR)  # we say ourselves how far it is
            ray.data.DataContext.get_current().enable_progress_bars = False
            about = (job.folder.resolve(), target, without_secrets(config), secrets.token_hex(8))
            done = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
                Writer,
                batch_size=1,
                fn_constructor_args=about,
                # All at once, and one is enough to go on with.
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
                num_cpus=takes["num_cpus"],
                num_gpus=takes.get("num_gpus"),
            )  # Ray Data spreads actors over the nodes by itself
            for row in done.iter_rows():
                said = json.loads(row["said"])
                if "code" in said:
                    raise Refused(**said).received()
                job.done[row["name"]] = counts = Counts(**said)
                rows += counts.rows
                progress(rows, job.manifest.rows)
    except RayError as error:
        raise WorkerCrashedError(
            f"The cluster could not go on: {reason_of(error)}", hint=AGAIN
        ) from None
