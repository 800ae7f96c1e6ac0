"""The parts of `emberd embed-files` on a cluster: what is missing is divided among its nodes.

Every node reads the inputs and writes its parts itself, so they must be at the same paths
everywhere, as on a shared file system. The parts are those that one machine would write, and so a
run may be stopped here and go on there.
"""

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data

from emberd.config.load import Config
from emberd.corpus.job import Job, ProgressCallback
from emberd.corpus.manifest import NAME, Manifest
from emberd.corpus.parts import Counts, write_part
from emberd.migrate.embedding import PoolEmbedder, Target
from emberd.ray.cluster import join, places
from emberd.ray.configuration import at_home

if TYPE_CHECKING:
    from pathlib import Path

    Columns = dict[str, np.ndarray[Any, Any]]


class Writer:
    """What an actor does: it embeds whole parts, in a worker of its own."""

    def __init__(self, folder: "Path", target: Target, config: Config) -> None:
        self._folder = folder
        self._target = target
        self._manifest = Manifest.from_json((folder / NAME).read_text())
        self._parts = {part.name: part for part in self._manifest.parts}
        self._pool = PoolEmbedder(at_home(config)).__enter__()  # until the actor's process ends

    def __call__(self, batch: "Columns") -> "Columns":
        """Write the parts that are named, and return what was counted in each."""
        names = batch["name"].tolist()
        counts = [
            write_part(self._folder, self._manifest, self._parts[name], self._pool, self._target)
            for name in names
        ]
        return {
            "name": batch["name"],
            "rows": np.array([each.rows for each in counts]),
            "without_text": np.array([each.without_text for each in counts]),
            "cut": np.array([each.cut for each in counts]),
        }


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
        EmberdError: as `write_part`, of the first part that failed.
    """
    missing = [{"name": part.name} for part in job.manifest.parts if part.name not in job.done]
    progress(job.counts.rows, job.manifest.rows)
    if not missing:
        return
    join(address)
    try:
        count, takes = places()
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # we say ourselves how far it is
        ray.data.DataContext.get_current().enable_progress_bars = False
        done = ray.data.from_items(missing, override_num_blocks=len(missing)).map_batches(
            Writer,
            batch_size=1,
            fn_constructor_args=(job.folder.resolve(), target, config),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count),
            num_cpus=takes["num_cpus"],
            num_gpus=takes.get("num_gpus"),  # and Ray Data spreads actors over the nodes by itself
        )
        for row in done.iter_rows():
            name = row.pop("name")
            job.done[name] = Counts(**{key: int(value) for key, value in row.items()})
            progress(job.counts.rows, job.manifest.rows)
    finally:
        ray.shutdown()
