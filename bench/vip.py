"""New connections per second to a virtual IP beside direct ones to a replica.

From a sandbox to nginx in three sandboxes of the other node, a connection per request. Client,
servers and both nodes share this machine, so the ratio says what the translation costs a
connection here; it is no capacity.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from bench.lab import SERVER_PORT, VIP, lab, sandbox_address
from bench.report import ratio, say
from bench.web import servers, wrk

ROUNDS = 5
SECONDS = 2
CONNECTIONS = 16


def main() -> None:
    """Measure and print."""
    asyncio.run(_main())


async def _main() -> None:
    targets = {"vip": VIP, "direct": sandbox_address("s1")}
    rates: dict[str, list[float]] = {label: [] for label in targets}
    with tempfile.TemporaryDirectory(prefix="hivewire-bench-") as name:
        async with lab(Path(name)) as made, servers(made):
            for _ in range(ROUNDS):
                for label, address in targets.items():
                    url = f"http://{address}:{SERVER_PORT}/"
                    rate, _ = await wrk(
                        made.sandbox("c1"), url,
                        connections=CONNECTIONS, seconds=SECONDS, close=True,
                    )  # fmt: skip
                    rates[label].append(rate)
    for label, values in rates.items():
        say(f"{label}: {statistics.median(values):,.0f} connections/s (median of {ROUNDS})")
    ratio("vip", statistics.median(rates["vip"]), statistics.median(rates["direct"]))
