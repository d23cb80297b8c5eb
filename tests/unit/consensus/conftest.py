"""No pickle, in any test of consensus."""

from __future__ import annotations

import pickle  # noqa: TID251 - to forbid it
from typing import NoReturn

import pytest


def _refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("pickle was used")


@pytest.fixture(autouse=True)
def _no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("loads", "load", "dumps", "dump"):
        monkeypatch.setattr(pickle, name, _refuse)
