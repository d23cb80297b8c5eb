"""Clusters that have come together already, for what is measured after that (pure)."""

from __future__ import annotations

from gossip.codec import Codec, SealedCodec
from gossip.config import GossipConfig
from gossip.keyring import Keyring
from gossip.simulation.network import AUTHORITY, KEYS, Mode, SimNetwork
from gossip.simulation.objects import ObjectCodec
from gossip.wire import NODES

_HERALD = "herald"
_NOWHERE = ("10.255.0.1", 7946)


def cluster(
    size: int,
    *,
    seed: int,
    config: GossipConfig | None = None,
    mode: Mode = Mode.OBJECTS,
    scope: str | None = None,
    latency_s: tuple[float, float] = (0.0003, 0.002),
    settle_s: float = 0.0,
) -> SimNetwork:
    """Return a network of nodes that know each other from the start, all attached to `scope`.

    They did not have to find each other: joining is another thing to measure, and takes a thousand
    nodes minutes of real time.
    """
    net = SimNetwork(size, seed=seed, config=config, mode=mode, latency_s=latency_s, seed_nodes=0)
    if scope is not None:
        for name in net.nodes:
            net.attach(name, scope)
    _introduce(net)
    if scope is not None:
        _compare(net)
    net.run(settle_s)
    return net


def _introduce(net: SimNetwork) -> None:
    """Let every node know all others."""
    everyone = [
        (node.machine.me, AUTHORITY.identity(node.name).certificate) for node in net.nodes.values()
    ]
    for name in net.nodes:
        net.do(name, lambda m: m.meet(everyone, now=net.now))


def _compare(net: SimNetwork) -> None:
    """Tell every node what all others have said, as a stream of anti-entropy would."""
    herald = Keyring(cluster_id="cluster", node_id=_HERALD, epoch=1, keys=KEYS)
    codec: Codec = ObjectCodec(herald) if net.mode is Mode.OBJECTS else SealedCodec(herald)
    deltas: list[bytes] = []
    for node in net.nodes.values():
        node.machine.handle_timer(now=net.now)  # it signs the head of what it has said
        deltas += map(codec.encode, node.machine.own_deltas(NODES))
    frame = codec.seal(deltas, to=None)
    for node in net.nodes.values():
        net.do(node.name, lambda m: m.receive_frame(frame, _NOWHERE, peer=_HERALD, now=net.now))
