"""How long until all know of a death, beside memberlist (virtual time).

A node of a quiet cluster stops without a word; 24 samples each. memberlist 0.6.0's figures are of
virtual time too, with its LAN defaults. With four nodes, three stop one after another: memberlist
goes on to count the dead among those who could confirm, and takes longer each time.

What the numbers are not: of a process that ends on a living host, which refuses packets at once and
is known dead much sooner (`make bench NAME=detection`); nor of wall-clock time.
"""

from __future__ import annotations

from bench.report import say, value
from bench.virtual import simulate
from gossip.simulation.detection import Detection, detect, detect_in_turn
from gossip.simulation.figures import figures

_RUNS = 24
_PEER = {8: (5.68, 5.88), 16: (6.72, 7.07), 32: (7.79, 8.17), 64: (8.89, 9.47), 128: (10.19, 10.73)}
_PEER_IN_TURN = "5.9, 13.2, 25.9"
_DEATHS = 3


def main() -> None:
    """Measure and print."""
    worst_ratio = spread = 0.0
    for nodes, (first, everyone) in _PEER.items():
        found = simulate(_run, [(nodes, seed) for seed in range(_RUNS)])
        ours_first = figures(one.first_s for one in found).p50
        ours_all = figures(one.all_s for one in found)
        spread = max(spread, *(one.all_s - one.first_s for one in found))
        worst_ratio = max(worst_ratio, ours_all.p50 / everyone)
        say(f"N={nodes:<4} first {ours_first:5.2f} all {ours_all.p50:5.2f} "
            f"(max {ours_all.worst:.1f}) s; memberlist {first:.2f} {everyone:.2f}")  # fmt: skip
    in_turn = simulate(_in_turn, range(_RUNS))
    medians = [figures(times[which] for times in in_turn).p50 for which in range(_DEATHS)]
    say(
        f"N=4, three deaths: {', '.join(f'{m:.1f}' for m in medians)} s; memberlist {_PEER_IN_TURN}"
    )
    value("detection_in_turn_s", max(medians))
    value("detection_spread_s", spread)
    value("detection_over_memberlist", worst_ratio)


def _run(job: tuple[int, int]) -> Detection:
    nodes, seed = job
    return detect(nodes, seed=seed)


def _in_turn(seed: int) -> list[float]:
    return [one.all_s for one in detect_in_turn(4, deaths=_DEATHS, seed=seed)]
