"""What all suites share: a slow machine is no failure; in CI as root, a skip is one."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A deadline measures what else the machine has to do: pytest's time-out finds what hangs.
settings.register_profile("hivewire", deadline=None)
settings.load_profile("hivewire")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("HIVEWIRE_NO_SKIPS") and terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("skipped tests count as failures here", red=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = isinstance(reporter, pytest.TerminalReporter) and reporter.stats.get("skipped")
    if os.environ.get("HIVEWIRE_NO_SKIPS") and skipped and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
