"""`/swarm/keys`: the gossip keys; hivewire's own, beside Docker's calls.

Invariant: no answer has a key's bytes.
"""

from __future__ import annotations

from aiohttp import web

from cluster.api.backend import Backend
from cluster.api.docker_json.cluster import keys_view
from cluster.api.exchange import Route, answer, fresh_snapshot, require_cluster
from cluster.control.keys import KEY_BYTES, rotate
from cluster.model.errors import OutOfSequence

ATTEMPTS_MAX = 3
"""Others may change the cluster object between our look and our change."""


class Keys:
    """The key ring as the managers agree on it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[Route]:
        """Return the calls that this object answers."""
        return [
            Route("GET", "/swarm/keys", self.inspect),
            Route("POST", "/swarm/keys/rotate", self.rotate),
        ]

    async def inspect(self, _request: web.Request) -> web.Response:
        """Answer with the ring: ids, states and times."""
        return answer(keys_view(require_cluster(await fresh_snapshot(self._backend))))

    async def rotate(self, _request: web.Request) -> web.Response:
        """Begin a rotation, and answer with the ring as it is then."""
        backend = self._backend
        for attempt in range(1, ATTEMPTS_MAX + 1):
            cluster = require_cluster(await fresh_snapshot(backend))
            change = rotate(cluster, backend.rng.randbytes(KEY_BYTES), backend.now())
            try:
                await backend.propose([change])
            except OutOfSequence:
                if attempt == ATTEMPTS_MAX:
                    raise
            else:
                break
        return answer(keys_view(require_cluster(backend.snapshot())))
