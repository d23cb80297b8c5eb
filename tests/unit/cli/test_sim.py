"""`hivewire sim` plays every scenario, and says with which seed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from cluster.cli.main import main
from gossip.simulation.scenarios import SCENARIOS, Scenario, until


def _run(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["sim", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_is_played(name: str) -> None:
    assert "seed 3, 5 nodes, trace " in _run(name, "--seed", "3", "--nodes", "5")


def test_a_seed_gives_the_same_output_in_either_mode() -> None:
    objects = _run("death", "--nodes", "5", "--mode", "objects")

    assert objects == _run("death", "--nodes", "5", "--mode", "bytes")
    assert objects != _run("death", "--nodes", "5", "--seed", "2")


def test_scenarios_are_listed() -> None:
    listed = _run("--list")

    assert listed == _run()
    for name, scenario in SCENARIOS.items():
        assert name in listed
        assert scenario.summary in listed


def test_what_does_not_come_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    never = Scenario("Waits in vain.", lambda net: [("comes", until(net, lambda: False))])
    monkeypatch.setitem(SCENARIOS, "death", never)

    result = CliRunner().invoke(main, ["sim", "death", "--nodes", "3"])

    assert result.exit_code == 1
    assert "comes: not within 180 s" in result.output


def test_interrupted_run_exits_with_130() -> None:
    command = [sys.executable, "-m", "cluster.cli.main", "sim", "update", "--nodes", "2000"]
    # Whoever runs the tests in the background ignores Ctrl-C, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        process.stdout.readline()  # it says what it will do, then it does it
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert not errors


def test_an_unknown_scenario_is_refused_with_the_known_ones() -> None:
    result = CliRunner().invoke(main, ["sim", "nonsense"])

    assert result.exit_code == 2
    assert "sim [OPTIONS] [SCENARIO]\n" in result.output
    assert "Invalid value for '[SCENARIO]': 'nonsense' is not one of 'death'," in result.output
