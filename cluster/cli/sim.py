"""`hivewire sim`: gossip among many nodes in virtual time."""

from __future__ import annotations

import click

from cluster.cli.failure import EXIT_ERROR
from gossip.simulation.network import Mode
from gossip.simulation.scenarios import SCENARIOS, play

_NODES_MAX = 2000


@click.command
@click.argument(
    "scenario", required=False, metavar="[SCENARIO]", type=click.Choice(sorted(SCENARIOS))
)
@click.option("--list", "is_list", is_flag=True, help="Show the scenarios.")
@click.option("--seed", default=1, show_default=True, help="The same seed gives the same run.")
@click.option(
    "--nodes",
    type=click.IntRange(3, _NODES_MAX),
    help="Other than the scenario's own; 1,000 take minutes.",
)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.OBJECTS.value,
    show_default=True,
    help="Packets as objects (fast), or packed and sealed as on the wire.",
)
def sim(scenario: str | None, *, is_list: bool, seed: int, nodes: int | None, mode: str) -> None:
    """Run gossip among many nodes in virtual time, and print what it came to.

    Without SCENARIO: list them. No daemon is needed and nothing is sent: nodes, links and clocks
    are simulated. Exits with 1 if what was waited for did not come.
    """
    if is_list or scenario is None:
        for name, entry in sorted(SCENARIOS.items()):
            click.echo(f"{name:10} {entry.nodes:3} nodes  {entry.summary}")
        return
    click.echo(f"{scenario}: {SCENARIOS[scenario].summary}")
    outcome = play(scenario, seed=seed, nodes=nodes, mode=Mode(mode))
    for fact, figure in outcome.facts:
        click.echo(f"  {fact}: {figure}")
    click.echo(f"  seed {seed}, {outcome.nodes} nodes, trace {outcome.trace}")
    if outcome.is_late:
        raise SystemExit(EXIT_ERROR)
