"""False alarms of our SWIM mode and of Lifeguard while some members are slow (virtual time).

The Lifeguard paper's interval experiment with 128 members, alpha 5 and beta 6: C members are
blocked for D and run for I, in turn, for 120 s. A false positive (FP) is a healthy member taken for
dead, at any member; FP- only counts those at healthy members. SWIM mode is the same program with
Lifeguard's three parts, and what it adds itself, switched off (`GossipConfig.swim`).

What the numbers are not: the paper's. It ran memberlist in one hundred virtual machines for all of
C, D and I, and summed up; these are its prototype cells, one seed each, without a network card. Our
SWIM mode spreads what it hears at once, not in ticks of 200 ms as memberlist does, and so raises
fewer false alarms where members run for 256 ms than memberlist's (915 FP in the first eight cells).
"""

from __future__ import annotations

from bench.report import say, value
from bench.virtual import simulate
from gossip.simulation.lifeguard import CELLS, Alarms, Cell, lifeguard, replay, swim

_SEED = 1
_PAPER = "the paper: SWIM 339,002 FP / 1,326 FP-, Lifeguard 1.53 % / 1.89 % of them"


def main() -> None:
    """Replay all cells in both modes and print."""
    jobs = [(cell, is_swim) for cell in CELLS for is_swim in (True, False)]
    alarms = dict(zip(jobs, simulate(_run, jobs), strict=True))
    say("   C   D ms  I ms | SWIM FP / FP- | Lifeguard FP / FP-")
    totals = {True: [0, 0], False: [0, 0]}
    for cell in CELLS:
        both = [alarms[cell, is_swim] for is_swim in (True, False)]
        where = f"{cell.blocked:4} {1000 * cell.blocked_s:6.0f} {1000 * cell.normal_s:5.0f}"
        shown = " | ".join(f"{found.false:6} / {found.false_at_healthy:5}" for found in both)
        say(f"{where} | {shown}")
        for is_swim, found in zip((True, False), both, strict=True):
            totals[is_swim][0] += found.false
            totals[is_swim][1] += found.false_at_healthy
    say(f"   all cells      | {totals[True][0]} / {totals[True][1]} | "
        f"{totals[False][0]} / {totals[False][1]}")  # fmt: skip
    say(_PAPER)
    value("lifeguard_fp_at_healthy", totals[False][1])
    say(f"ratio lifeguard {totals[False][0] / max(1, totals[True][0]):.4f}")


def _run(job: tuple[Cell, bool]) -> Alarms:
    cell, is_swim = job
    return replay(cell, swim() if is_swim else lifeguard(), seed=_SEED)
