"""Decides when a model is loaded whether it still gives the space that was accepted.

Files, config, backend or a library may have changed since, with or without moving vectors. It is
always compared with what was accepted, so that small steps cannot add up.
"""

from collections.abc import Callable
from dataclasses import replace

from emberd.spaces.compare import compare
from emberd.spaces.lock import LockEntry
from emberd.spaces.probes import Rows, encode


def judge(
    entry: LockEntry, before: LockEntry | None, embed_probes: Callable[[], Rows]
) -> LockEntry:
    """Return what to remember about a model that has just been loaded.

    Fingerprints do not decide here, because what changed may be something they do not cover.

    Args:
        entry: its state now, without probes.
        before: what was remembered.
        embed_probes: embeds the probe texts; called only if they are needed.
    """
    if before is None or not before.probes:
        return replace(entry, probes=encode(embed_probes()))
    if entry.is_same_state(before):
        return replace(
            entry, probes=before.probes, equivalent=before.equivalent, steps=before.steps
        )
    if before.changed_to and entry.is_same_state(before.changed_to):
        now = before.changed_to
        return replace(before, changed_to=replace(entry, probes=now.probes, steps=now.steps))
    found = replace(entry, probes=encode(embed_probes()))
    comparison = compare(before.measured("before"), found.measured("now"))
    if comparison.is_same:
        known = {*before.equivalent, *before.fingerprints.values()} - {*entry.fingerprints.values()}
        return replace(
            entry, probes=before.probes, equivalent=tuple(sorted(known)), steps=before.steps
        )
    return replace(before, changed_to=found, cosine=comparison.cosine)
