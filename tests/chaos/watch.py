"""What a task sees of the service `web`, written to a file again and again.

Run as a file: `python -I -S watch.py DIRECTORY PAUSE_S`. It writes a file with the task's id as its
name that holds one JSON object: the addresses of `tasks.web`, and who answered at its virtual
address of late.
"""

from __future__ import annotations

import collections
import json
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path

ANSWERS_KEPT = 16
"""Twice as many as `web` has replicas at most: round-robin reaches each of them."""


def _addresses() -> list[str]:
    try:
        found = socket.getaddrinfo("tasks.web", None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(address[0]) for *_, address in found})


def _answer() -> str:
    try:
        with urllib.request.urlopen("http://web/", timeout=1.0) as response:
            return str(json.load(response)["task"])
    except (OSError, ValueError) as error:
        return repr(error)


def _main(directory: Path, pause_s: float) -> None:
    file = directory / os.environ["HIVEWIRE_TASK_ID"]
    new = file.with_suffix(".new")
    answers = collections.deque[str](maxlen=ANSWERS_KEPT)
    while True:
        answers.append(_answer())
        new.write_text(json.dumps({"addresses": _addresses(), "answers": list(answers)}))
        new.rename(file)
        time.sleep(pause_s)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), float(sys.argv[2]))
