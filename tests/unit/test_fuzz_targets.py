"""What the fuzzers check, on their seeds, on what they found, and on a few mutations of both."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.targets import TARGETS

_MUTATIONS = 150


@pytest.mark.parametrize("name", TARGETS)
def test_target_holds(name: str) -> None:
    target = TARGETS[name]
    rng = Random(name)
    for data in target.inputs(name):
        target.run(data)
        for _ in range(_MUTATIONS // len(target.seeds)):
            target.run(_mutated(data, rng))


def _mutated(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(3):
            case 0:
                changed[at:at] = rng.randbytes(rng.randint(1, 4))
            case 1:
                del changed[at : at + rng.randint(1, 4)]
            case _:
                changed[at : at + 1] = rng.randbytes(1)
    return bytes(changed)
