"""Encryption at rest: AES-256-GCM under a key of each file's own.

Every file has a random salt; its key is HKDF-SHA256(data key, salt, purpose). Pieces of a file are
numbered and the number is the nonce, so no nonce is used twice: the log is rewritten under a new
salt whenever it is opened, before anything is appended. Source: NIST SP 800-38D, RFC 5869.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.consensus.errors import StorageFailure

SALT_BYTES = 16
DATA_KEY_BYTES = 32
_NONCE_BYTES = 12


class FileSeal:
    """Seals the pieces of one file."""

    def __init__(self, data_key: bytes, *, salt: bytes, purpose: bytes) -> None:
        if len(data_key) != DATA_KEY_BYTES:
            raise ValueError(f"the data key must have {DATA_KEY_BYTES} bytes, not {len(data_key)}")
        key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"hivewire " + purpose)
        self._cipher = AESGCM(key.derive(data_key))
        self._purpose = purpose

    def seal(self, number: int, data: bytes) -> bytes:
        """Return `data` encrypted as piece `number`; each number may be used once."""
        return self._cipher.encrypt(number.to_bytes(_NONCE_BYTES, "big"), data, self._purpose)

    def open(self, number: int, sealed: bytes) -> bytes:
        """Return what was sealed as piece `number`.

        Raises:
            StorageFailure: another key, another piece, or damage.
        """
        try:
            return self._cipher.decrypt(number.to_bytes(_NONCE_BYTES, "big"), sealed, self._purpose)
        except InvalidTag:
            raise StorageFailure(
                f"the {self._purpose.decode()} cannot be decrypted: wrong key, or damaged"
            ) from None


def fresh_salt() -> bytes:
    """Return a new file's salt."""
    return os.urandom(SALT_BYTES)
