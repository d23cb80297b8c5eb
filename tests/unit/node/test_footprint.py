"""Tests of what keeps a daemon small."""

from __future__ import annotations

import os
import ssl
import tomllib
from pathlib import Path

import pytest

from cluster.model.version import VERSION
from cluster.node.footprint import without_public_authorities


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
