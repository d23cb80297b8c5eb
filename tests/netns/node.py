"""One node of the lab: enters its namespace, applies the plans that it reads from standard input.

usage: python -m tests.netns.node NAMESPACE RUN_DIRECTORY [bare-kernel]
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import msgspec

from dataplane.driver import DriverError
from dataplane.kernel.driver import KernelDriver
from dataplane.kernel.ingress_rules import LEAST_ABILITIES, Abilities
from dataplane.kernel.netns import CLONE_NEWNET, open_namespace
from tests.netns.wire import Answer, decode_plan


async def serve(run_directory: Path, options: list[str]) -> None:
    driver = KernelDriver(
        run_directory, kernel=LEAST_ABILITIES if "bare-kernel" in options else Abilities()
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(driver.run())
        await answer(driver)
        running.cancel()


async def answer(driver: KernelDriver) -> None:
    """Apply plans until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        said = Answer()
        try:
            if line == b"distrust\n":
                await driver.distrust()
            else:
                outcome = await driver.apply(decode_plan(line))
                said.broken, said.leftovers = dict(outcome.broken), outcome.leftovers
        except DriverError as error:
            said.error = str(error)
        said.operations = driver.stats().operations
        said.forgotten = driver.stats().forgotten
        said.ms = driver.stats().last_apply_ms
        sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    namespace, run_directory = map(Path, sys.argv[1:3])
    descriptor = open_namespace(namespace)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns", str(namespace))
    os.close(descriptor)
    asyncio.run(serve(run_directory, sys.argv[3:]))


if __name__ == "__main__":
    main()
