"""Whether a request for a model would be answered in a space, told without loading the model.

A balancer asks this once a second. So it costs a look at `lock.json` and the status of a few files,
starts nothing, and is no activity: the model's idle time goes on.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import get_args

from emberd.dtypes import Dtype, has_step
from emberd.errors import NotServedError
from emberd.models.availability import find_here
from emberd.pool.model import Model
from emberd.spaces.fingerprint import of_dtype, of_late
from emberd.spaces.lock import LockEntry

DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def check_served(model: Model, fingerprint: str | None) -> None:
    """Pass if a request for the model would be answered; with `fingerprint`, in that space.

    The error never says which space it is: those who ask need not have a token.

    Raises:
        NotServedError: it would not, or the space is not known before the model is loaded.
    """
    name = model.spec.name
    if model.rests_s > 0:
        raise NotServedError(
            f"{name} cannot be started here now.", hint="`emberd ps` says why, on that machine."
        )
    entry = model.record.read()
    if fingerprint is None:
        if not model.backlog.lanes and not find_here(model.spec, model.context.homes.hub, entry):
            raise NotServedError(
                f"{name} is not on this machine.", hint=f"Run `emberd pull {name}` there."
            )
        return
    known = _spaces_of(model, entry)
    if known is None:
        raise NotServedError(
            f"In which space {name} answers is not known before it is loaded.",
            hint=f"Run `emberd load {name}` on that machine once.",
        )
    steps = entry.now.steps if entry else {}
    if fingerprint not in known and fingerprint not in made_of(known, steps):
        raise NotServedError(
            f"{name} is not served in that space.",
            hint="Compare the `fingerprint` in `emberd ps --json` of the machines.",
        )


def _spaces_of(model: Model, entry: LockEntry | None) -> Collection[str] | None:
    """Return the spaces of the model's float32 vectors, those of smaller sizes too, if known.

    What was loaded before counts only if the entry and the files are still the same.
    """
    if lanes := model.backlog.lanes:
        return {*lanes[0].ready.fingerprints.values(), *lanes[0].ready.equivalent}
    if not entry or entry.now.started_for != model.spec.load_key or not entry.now.files_unchanged:
        return None
    return entry.now.known_as


def made_of(spaces: Collection[str], steps: Mapping[str, float]) -> Iterator[str]:
    """Yield the spaces that are made of these: of chunks, and of smaller numbers."""
    for space in spaces:
        for each in (space, of_late(space)):
            for dtype in DTYPES:
                for step in steps.values() if has_step(dtype) else (0.0,):
                    yield of_dtype(each, dtype, step)
