"""Tunables of the gossip layer, with the source of each default (pure).

Two profiles: `lan()` for real networks and `local()` for several nodes on one machine, where a
probe takes microseconds and a demonstration should not wait. Limits that bound memory or the wire
format are not tunable: they stand as constants beside the code they protect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GossipConfig:
    """Times in seconds. Defaults are memberlist's LAN defaults unless said otherwise."""

    probe_interval_s: float = 1.0
    """One member is probed each interval (stretched by the local health score)."""
    probe_timeout_s: float = 0.5
    """Longest wait for a direct ack before others are asked to probe."""
    probe_timeout_min_s: float = 0.05
    """Shortest such wait; between the two it is four times the smoothed round trip."""
    indirect_probes: int = 3
    """How many others are asked."""
    nack_share: float = 0.8
    """A helper answers NACK after this share of the timeout (Lifeguard, section IV-A)."""
    scales_with_health: bool = True
    """LHA-Probe: failures while helpers stay silent slow this node's own probes down."""
    shrinks_suspicions: bool = True
    """LHA-Suspicion: a suspicion starts long and shrinks as others confirm it."""
    tells_suspects: bool = True
    """Buddy system: every packet to a suspect says so."""
    forgives_stalls: bool = True
    """Suspicions wait as long as this node itself slept (not in the paper)."""
    deaf_after_s: float = 2.0
    """Suspicions also wait while this node has heard nobody for longer than this (not in the paper
    either). Of two nodes that are left of many, each hears the other twice in this time."""
    believes_deaths: bool = False
    """Another's DEAD is final, as in SWIM and memberlist; else it is one accusation more."""
    health_max: int = 7
    """Worst local health score; interval and timeout are multiplied by score + 1."""
    suspicion_multiplier: int = 4
    """alpha: the shortest suspicion is alpha * max(1, log10 n) probe intervals."""
    suspicion_max_multiplier: int = 6
    """beta: an unconfirmed suspicion lasts beta times the shortest one."""
    suspicion_floor_s: float = 2.0
    """No suspicion is shorter than this."""
    refused_suspicion_s: float = 1.25
    """A suspicion lasts no longer when other nodes' packets were refused too. The specification's
    two probe intervals would not let 30 nodes know within 2.5 s."""
    watch_interval_s: float | None = 1.0
    """How often the successor by id gets an empty packet, to be refused where it has died: a quiet
    node sends to each of 30 others every 20 s only. None: never."""
    gossip_to_dead_s: float = 30.0
    """Updates still go to a member this long after it was declared dead."""
    reconnect_interval_s: float = 1.0
    """How often one random dead member is tried."""
    reconnect_max_s: float = 60.0
    """Longest pause between two tries of the same dead member."""
    bootstrap_interval_s: float = 15.0
    """How often the bootstrap addresses are tried while no other member is alive."""
    fanout: int = 3
    """Members an update is sent to in one round."""
    batch_window_s: tuple[float, float] = (0.010, 0.020)
    """A fresh update waits a random time in this window, for others to share its packet."""
    round_spacing_s: tuple[float, ...] = (0.020, 0.040, 0.080, 0.160, 0.200)
    """Pauses between the rounds of one update."""
    packet_rate: float = 100.0
    """Packets per second that dissemination may start; above it, ticks of `degraded_tick_s`."""
    degraded_tick_s: float = 0.2
    sync_interval_s: float = 1.0
    """Anti-entropy with one random peer per scope; doubles up to the maximum while equal."""
    sync_interval_max_s: float = 4.0
    sync_extra_s: tuple[float, ...] = (0.1, 0.3, 0.6, 1.0)
    """Extra rounds after joining the cluster or a scope, each with another peer."""
    packet_bytes_max: int = 1400
    """Datagram size. The specification's 1200 would not hold the largest record with signature."""
    tombstone_s: float = 900.0
    """An owner forgets its deletion after this; a dead owner's records are kept hidden as long."""
    member_tombstone_s: float = 86_400.0
    """A dead member is forgotten after this (foca: minutes are too short)."""

    def __post_init__(self) -> None:
        if not 0 < self.probe_timeout_s < self.probe_interval_s:
            raise ValueError(
                f"probe_timeout_s {self.probe_timeout_s} is not in (0, {self.probe_interval_s})"
            )
        if not 0 < self.probe_timeout_min_s <= self.probe_timeout_s:
            raise ValueError("probe_timeout_min_s is not in (0, probe_timeout_s]")
        if self.packet_bytes_max not in range(1200, 9000):
            raise ValueError(f"packet_bytes_max {self.packet_bytes_max} is not in [1200, 9000)")

    @classmethod
    def lan(cls) -> GossipConfig:
        """Return the profile for hosts on a network."""
        return cls()

    @classmethod
    def swim(cls) -> GossipConfig:
        """Return `lan` without what Lifeguard and this program add to SWIM, to compare with."""
        return cls(
            scales_with_health=False,
            shrinks_suspicions=False,
            tells_suspects=False,
            forgives_stalls=False,
            deaf_after_s=math.inf,
            watch_interval_s=None,
            believes_deaths=True,
        )

    @classmethod
    def local(cls) -> GossipConfig:
        """Return the profile for nodes that share one machine: detection in one to two seconds."""
        return cls(
            probe_interval_s=0.2,
            probe_timeout_s=0.1,
            deaf_after_s=1.0,
            suspicion_floor_s=0.5,
            refused_suspicion_s=0.5,
            watch_interval_s=None,
            reconnect_interval_s=0.5,
            reconnect_max_s=5.0,
            bootstrap_interval_s=3.0,
        )
