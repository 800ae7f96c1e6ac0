"""Which replica gets a request: the one that has the fewest unanswered ones from this ingress.

Serve's own choice goes by what replicas report when they take a request, which is out of date by
then: behind HAProxy, one replica of two is idle while requests wait for the other (decision 64).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

SOON_S = 0.1  # a choice that led to no request by then is forgotten


class LeastBusy(FIFOMixin, RequestRouter):  # type: ignore[misc] # Ray's classes have no types
    """Serve's `RequestRouter` that counts what it has sent itself; all of it on one event loop."""

    def initialize_state(self, **_kwargs: object) -> None:
        """Begin with nothing under way."""
        self._under_way: Counter[ReplicaID] = Counter()
        self._chosen: Counter[ReplicaID] = Counter()  # and not sent yet: Serve chooses for several

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Sequence[list[RunningReplica]]:
        """Return all of them in ranks, the least busy first; Serve takes the first that has room.

        Those of which Serve has not heard lately are in the first rank, too: it asks them meanwhile
        whether they are there, and waits for that only if there is no other.
        """
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # if all are full
        shuffled = random.sample(candidate_replicas, len(candidate_replicas))  # equals take turns
        shuffled.sort(key=lambda replica: self._busy(replica.replica_id))
        heard = {each.replica_id: self._has_heard_of(each.replica_id) for each in shuffled}
        known = [replica for replica in shuffled if heard[replica.replica_id]]
        unknown = [replica for replica in shuffled if not heard[replica.replica_id]]
        if known:
            first = known[0].replica_id
            self._chosen[first] += 1
            asyncio.get_running_loop().call_later(SOON_S, _take_one, self._chosen, first)
        ranks = [[*known[:1], *unknown], known[1:]]
        return [rank for rank in ranks if rank]

    def _busy(self, replica_id: ReplicaID) -> int:
        return self._under_way[replica_id] + self._chosen[replica_id]

    def _has_heard_of(self, replica_id: ReplicaID) -> bool:
        return self.replica_queue_len_cache.get(replica_id) is not None

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a request, before the replica has taken it."""
        _take_one(self._chosen, replica_id)
        self._under_way[replica_id] += 1
        super().on_send_request(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count it no more, however it ended; also if it could not be sent, and was not counted."""
        _take_one(self._under_way, replica_id)
        super().on_request_completed(replica_id, internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget those that are gone."""
        super().update_replicas(replicas)
        there = {replica.replica_id for replica in replicas}
        for counter in (self._under_way, self._chosen):
            for gone in counter.keys() - there:
                del counter[gone]


def _take_one(counter: Counter[ReplicaID], replica_id: ReplicaID) -> None:
    if counter[replica_id] > 0:
        counter[replica_id] -= 1
