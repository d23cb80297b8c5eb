"""Fuzzes targets, each for some time: `python -m tests.fuzz [--seconds N] [TARGET ...]`.

Ends with status 1 if anything was found; the inputs then lie in `found/TARGET/`, where the unit
tests read them too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.targets import FOUND, TARGETS

_SECONDS = 600
_INPUT_BYTES_MAX = 8192
_MEMORY_MB = 1024
_SLOW_S = 10
_REPORT_CHARS = 4000


def main() -> int:
    """Fuzz, print a line for each target, and return the exit status."""
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=_SECONDS, help="for each target")
    wanted = parser.parse_args()
    unknown = set(wanted.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    results = [_fuzz(name, wanted.seconds) for name in wanted.targets or TARGETS]
    return 0 if all(results) else 1


def _fuzz(name: str, seconds: int) -> bool:
    found = FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="hivewire-fuzz-") as corpus,
        Path(corpus).with_suffix(".log").open("w+b") as log,
    ):
        command = [sys.executable, "-m", "tests.fuzz.worker", name, corpus]
        options = {
            "max_total_time": seconds,
            "max_len": _INPUT_BYTES_MAX,
            "rss_limit_mb": _MEMORY_MB,
            "timeout": _SLOW_S,
            "artifact_prefix": f"{found}/",
            "print_final_stats": 1,
        }
        command += [f"-{option}={value}" for option, value in options.items()]
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        log.seek(0)
        text = log.read().decode(errors="replace")
    Path(log.name).unlink()
    runs = re.search(r"stat::number_of_executed_units: *(\d+)", text)
    if status == 0 and runs:
        _say(f"{name}: nothing found in {seconds} s, {int(runs[1]):,} runs")
    else:
        _say(text[-_REPORT_CHARS:])
        _say(f"{name}: FOUND something, see above and {found}")
    if not any(found.iterdir()):
        found.rmdir()
    return status == 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
