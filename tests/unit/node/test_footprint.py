"""Tests of what keeps a daemon small."""

from __future__ import annotations

import gc
import os
import ssl
import tomllib
from pathlib import Path

import pytest

from cluster.model.version import VERSION
from cluster.node.footprint import (
    after_start,
    settle,
    unwritten_mappings,
    without_public_authorities,
)


def test_public_authorities_are_hidden_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/mine.pem")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with without_public_authorities():
        context = ssl.create_default_context()
        assert context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}
    assert os.environ["SSL_CERT_FILE"] == "/etc/mine.pem"
    assert "SSL_CERT_DIR" not in os.environ


def test_version_is_the_packages() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert tomllib.loads(text)["project"]["version"] == VERSION


SMAPS = """\
55d0a1000000-55d0a1002000 r-xp 00001000 fe:01 4711                       /usr/bin/python3.11
Rss:                   8 kB
Anonymous:             0 kB
55d0a1002000-55d0a1003000 r--p 00003000 fe:01 4711                       /usr/bin/python3.11
Anonymous:             4 kB
55d0a1003000-55d0a1004000 rw-p 00004000 fe:01 4711                       /usr/bin/python3.11
Anonymous:             0 kB
55d0a1004000-55d0a1005000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--s 00000000 fe:01 4712                       /dev/shm/shared
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 fe:01 4713                       /usr/lib/a library.so
Anonymous:             0 kB
"""


def test_only_what_files_hold_unchanged_is_given_back() -> None:
    assert unwritten_mappings(SMAPS) == [
        (0x55D0A1000000, 0x55D0A1002000),
        (0x7F0000002000, 0x7F0000003000),
    ]


def test_a_process_goes_on_after_settling() -> None:
    settle()
    assert ssl.create_default_context().minimum_version


def test_cycles_are_looked_for_again_once_the_daemon_serves() -> None:
    threshold = gc.get_threshold()
    gc.disable()
    try:
        after_start()
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.set_threshold(*threshold)
        gc.unfreeze()
