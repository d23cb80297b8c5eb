"""The demo's other service: looks a service up by name and calls it, and prints what it saw.

Run as a file: `python -I -S probe.py NAME PORT`. Prints one JSON object and ends.
"""

from __future__ import annotations

import json
import socket
import sys
import urllib.request

CALLS = 6


def _addresses(name: str) -> list[str]:
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def _main(name: str, port: str) -> None:
    answers: dict[str, int] = {}
    for _ in range(CALLS):
        url = f"http://{name}:{port}/"
        with urllib.request.urlopen(url, timeout=5) as response:
            task = json.load(response)["task"]
        answers[task] = answers.get(task, 0) + 1
    seen = {"vip": _addresses(name), "tasks": _addresses(f"tasks.{name}"), "answers": answers}
    sys.stdout.write(json.dumps(seen) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:3])
