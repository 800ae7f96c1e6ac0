"""Which replica gets a request: the one that has the fewest unanswered ones from this ingress.

Serve's own choice goes by what replicas report when they take a request, which is out of date by
then: behind HAProxy, one replica of two is idle while requests wait for the other (decision 64).
"""

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


class LeastBusy(FIFOMixin, RequestRouter):  # type: ignore[misc] # Ray's classes have no types
    """Serve's `RequestRouter` that counts what it has sent itself."""

    def initialize_state(self, **_kwargs: object) -> None:
        """Begin with nothing under way."""
        self._under_way: Counter[ReplicaID] = Counter()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> Sequence[list[RunningReplica]]:
        """Return all of them, the least busy first; Serve takes the first that is not full."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True  # if all are full
        shuffled = random.sample(candidate_replicas, len(candidate_replicas))  # equals take turns
        shuffled.sort(key=lambda replica: self._under_way[replica.replica_id])
        return [[replica] for replica in shuffled]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Count a request, before the replica has taken it."""
        self._under_way[replica_id] += 1
        super().on_send_request(replica_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Count it no more, however it ended."""
        self._under_way[replica_id] -= 1
        super().on_request_completed(replica_id, internal_request_id)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forget it."""
        super().on_replica_actor_died(replica_id)
        self._under_way.pop(replica_id, None)
