"""A node's certificate, key and CA on disk: `ca.crt`, `node.crt`, `node.key`, after Swarm.

The directory is 0700, every file 0600. `save` replaces the pair as one: it first writes
`node.crt.next` and `node.key.next` (both there: the new pair counts), then renames them; `load`
finishes or undoes what a crash has interrupted. So a key never stands beside another's certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cluster.ca.certificates import (
    CertificateError,
    PeerIdentity,
    check_time,
    is_key_of,
    read_identity_untrusted,
    verify_untrusted,
)
from cluster.private_file import next_of, sync_directory, write_next, write_private


@dataclass(frozen=True, slots=True)
class Credentials:
    """By what a node is known, and whom it trusts; all PEM."""

    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)


class CertificateDirectory:
    """One node's `certificates/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ca_path = path / "ca.crt"
        self.certificate_path = path / "node.crt"
        self.key_path = path / "node.key"

    def exists(self) -> bool:
        """Return whether this node has a certificate: whether it ever joined."""
        return self.certificate_path.exists()

    def save(self, credentials: Credentials) -> None:
        """Write or replace everything, atomically and synced to disk.

        Raises:
            CertificateError: the key is not the certificate's; nothing was written.
        """
        if not is_key_of(credentials.key, credentials.certificate):
            raise CertificateError("the certificate was issued for another key")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        write_private(self.ca_path, credentials.ca)
        write_next(self.certificate_path, credentials.certificate)
        write_next(self.key_path, credentials.key)
        sync_directory(self.path)
        self._finish()

    def load(self, now: float) -> tuple[Credentials, PeerIdentity]:
        """Return what `save` wrote, and the identity in it.

        Raises:
            CertificateExpired: only its time is wrong (see `load_at_any_time`).
            CertificateError: missing, unreadable, or not belonging together.
        """
        credentials, identity = self.load_at_any_time()
        check_time(identity, now)
        return credentials, identity

    def load_at_any_time(self) -> tuple[Credentials, PeerIdentity]:
        """Return what `load` does, even if it has expired: a manager can renew its own.

        Raises:
            CertificateError: missing, unreadable, or not belonging together.
        """
        self._recover()
        credentials = Credentials(
            self._read(self.ca_path), self._read(self.certificate_path), self._read(self.key_path)
        )
        if not is_key_of(credentials.key, credentials.certificate):
            raise CertificateError(f"{self.key_path} is not the key of {self.certificate_path}")
        try:
            claimed = read_identity_untrusted(credentials.certificate)
            verify_untrusted(credentials.certificate, credentials.ca, claimed.not_after)
        except CertificateError as error:
            raise CertificateError(f"{self.certificate_path}: {error}") from error
        return credentials, claimed

    def remove(self) -> None:
        """Forget everything: this node has left its cluster."""
        for path in (self.ca_path, self.certificate_path, self.key_path):
            for each in (path, next_of(path)):
                each.unlink(missing_ok=True)
        if self.path.exists():
            sync_directory(self.path)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise CertificateError(f"{path} cannot be read: {error.strerror}") from error

    def _recover(self) -> None:
        """Finish a `save` that was interrupted after its point of no return, undo any other."""
        certificate, key = next_of(self.certificate_path), next_of(self.key_path)
        if not certificate.exists():
            key.unlink(missing_ok=True)
            return
        new_key = key if key.exists() else self.key_path
        try:
            is_pair = is_key_of(self._read(new_key), self._read(certificate))
        except CertificateError:
            is_pair = False
        if is_pair:
            self._finish()
        else:
            certificate.unlink()
            key.unlink(missing_ok=True)

    def _finish(self) -> None:
        if next_of(self.key_path).exists():
            next_of(self.key_path).replace(self.key_path)
        next_of(self.certificate_path).replace(self.certificate_path)
        sync_directory(self.path)
