"""Fuzzes one target: `python -m tests.fuzz.worker TARGET CORPUS [libFuzzer options]`.

Apart from `__main__`, because atheris ends its process when the time is over.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cluster", "gossip", "dataplane"]):
    from tests.fuzz.targets import TARGETS


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer ends the process."""
    name, corpus, *options = arguments
    target = TARGETS[name]
    for number, data in enumerate(target.inputs(name)):
        (Path(corpus) / f"seed{number}").write_bytes(data)
    atheris.Setup([name, *options, corpus], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
