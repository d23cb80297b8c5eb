"""Certificates on disk: modes, atomic replacement at every step, clear errors."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from cluster.ca.certificates import (
    CertificateError,
    CertificateExpired,
    RootCa,
    issue,
    new_request,
    new_root_ca,
)
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Role

NOW = 1_800_000_000.0
NODE = NodeId("n" * 25)
ROOT = new_root_ca(NOW)


def credentials(root: RootCa = ROOT, now: float = NOW) -> Credentials:
    request = new_request()
    certificate = issue(
        root,
        request.csr,
        node=NODE,
        role=Role.WORKER,
        cluster=ClusterId("c" * 25),
        now=now,
        validity_s=3600,
    )
    return Credentials(root.certificate, certificate, request.key)


OLD, NEW = credentials(), credentials()


@pytest.fixture
def directory(tmp_path: Path) -> CertificateDirectory:
    directory = CertificateDirectory(tmp_path / "state" / "certificates")
    directory.save(OLD)
    return directory


def test_save_and_load(directory: CertificateDirectory) -> None:
    loaded, identity = directory.load(NOW)
    assert loaded == OLD
    assert identity.node == NODE
    directory.save(NEW)
    assert directory.load(NOW)[0] == NEW
    assert "PRIVATE" not in repr(loaded)


def test_only_the_owner_may_look(directory: CertificateDirectory) -> None:
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    names = sorted(p.name for p in directory.path.iterdir())
    assert names == ["ca.crt", "node.crt", "node.key"]
    for path in directory.path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_before_the_point_of_no_return_the_old_pair_counts(
    directory: CertificateDirectory,
) -> None:
    (directory.path / "node.crt.next").write_bytes(NEW.certificate)
    assert directory.load(NOW)[0] == OLD
    (directory.path / "node.crt.next").write_bytes(NEW.certificate)
    (directory.path / "node.key.next").write_bytes(NEW.key[:40])
    assert directory.load(NOW)[0] == OLD
    (directory.path / "node.key.next").write_bytes(NEW.key)
    assert directory.load(NOW)[0] == OLD
    assert len(list(directory.path.iterdir())) == 3


def test_after_it_the_new_pair_counts(directory: CertificateDirectory) -> None:
    (directory.path / "node.crt.next").write_bytes(NEW.certificate)
    (directory.path / "node.key.next").write_bytes(NEW.key)
    assert directory.load(NOW)[0] == NEW
    directory.save(OLD)
    (directory.path / "node.crt.next").write_bytes(NEW.certificate)
    directory.key_path.write_bytes(NEW.key)
    assert directory.load(NOW)[0] == NEW


def test_a_foreign_key_is_never_saved(directory: CertificateDirectory) -> None:
    with pytest.raises(CertificateError, match="issued for another key"):
        directory.save(Credentials(OLD.ca, NEW.certificate, OLD.key))
    assert directory.load(NOW)[0] == OLD


def test_errors_name_the_file_and_the_reason(directory: CertificateDirectory) -> None:
    with pytest.raises(CertificateExpired, match=r"expired on"):
        directory.load(NOW + 7200)
    assert directory.load_at_any_time()[1].node == NODE
    directory.key_path.write_bytes(NEW.key)
    with pytest.raises(CertificateError, match=r"node\.key is not the key of .*node\.crt"):
        directory.load(NOW)
    directory.save(credentials(new_root_ca(NOW)))
    directory.ca_path.write_bytes(ROOT.certificate)
    with pytest.raises(CertificateError, match=r"node\.crt: .* not signed by this cluster's CA"):
        directory.load(NOW)
    directory.ca_path.write_bytes(b"junk")
    with pytest.raises(CertificateError, match=r"cannot be read"):
        directory.load(NOW)


def test_removed_is_gone(directory: CertificateDirectory) -> None:
    assert directory.exists()
    directory.remove()
    assert not directory.exists()
    with pytest.raises(CertificateError, match=r"ca\.crt cannot be read: No such file"):
        directory.load(NOW)
    directory.remove()
