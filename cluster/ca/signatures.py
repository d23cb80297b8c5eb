"""Signing with a node's TLS key: ECDSA P-256 over SHA-256, in 64 bytes (r and s, big endian)."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from cluster.ca.certificates import CertificateError

SIGNATURE_BYTES = 64
_HALF_BYTES = 32
_ALGORITHM = ec.ECDSA(hashes.SHA256())


class Signer:
    """Signs with a private key."""

    def __init__(self, key: bytes) -> None:
        """`key`: PEM, as `certificates.new_request` makes it. Raises CertificateError."""
        try:
            loaded = serialization.load_pem_private_key(key, password=None)
        except ValueError as error:
            raise CertificateError("the private key cannot be read") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise CertificateError("the private key is not an elliptic curve key")
        self._key = loaded

    def sign(self, data: bytes) -> bytes:
        """Return a signature of `data`."""
        r, s = utils.decode_dss_signature(self._key.sign(data, _ALGORITHM))
        return r.to_bytes(_HALF_BYTES, "big") + s.to_bytes(_HALF_BYTES, "big")


class Verifier:
    """Checks what the owner of a certificate signed."""

    def __init__(self, der: bytes) -> None:
        """`der`: a certificate that `certificates.verify_untrusted` took. Raises CertificateError.

        Only P-256 keys will do: a signature has 64 bytes.
        """
        try:
            key = x509.load_der_x509_certificate(der).public_key()
        except ValueError as error:
            raise CertificateError(f"the certificate cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise CertificateError("the certificate has another key than ECDSA P-256")
        self._key = key

    def is_signed_untrusted(self, signature: bytes, data: bytes) -> bool:
        """Tell whether the owner signed `data`, whatever `signature` is."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        r = int.from_bytes(signature[:_HALF_BYTES], "big")
        s = int.from_bytes(signature[_HALF_BYTES:], "big")
        try:
            self._key.verify(utils.encode_dss_signature(r, s), data, _ALGORITHM)
        except InvalidSignature:
            return False
        return True


def der_of(pem: bytes) -> bytes:
    """Return a certificate of our own, given as PEM, in DER."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
