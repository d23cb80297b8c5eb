"""Every package's docstring lists its modules: a newcomer's second hop never points nowhere."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

ROOMS = ("cluster", "gossip", "dataplane", "bench")


def packages() -> list[str]:
    found: list[str] = [*ROOMS]
    for room in ROOMS:
        path = importlib.import_module(room).__path__
        found += [m.name for m in pkgutil.walk_packages(path, f"{room}.") if m.ispkg]
    return found


@pytest.mark.parametrize("name", packages())
def test_package_lists_its_modules(name: str) -> None:
    package = importlib.import_module(name)
    _, _, index = (package.__doc__ or "").partition("Modules:\n")
    listed = [line.split(":")[0].strip() for line in index.splitlines() if line[:5].count(" ") == 4]
    modules = [m.name for m in pkgutil.iter_modules(package.__path__) if m.name != "__main__"]

    assert listed == sorted(modules)
