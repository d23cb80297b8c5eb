"""When to renew a certificate, and the loop that does.

A certificate is renewed at a random point between 50 and 80 % of its life (swarmkit ca/renewer.go),
so that nodes that joined together do not come back together; at once when the cluster wishes
another role of the node than its certificate names. Failures are retried, ever more slowly.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from random import Random

from cluster.ca.certificates import (
    BACKDATE_S,
    CertificateError,
    PeerIdentity,
    new_request,
    verify_untrusted,
)
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.model.errors import ClusterError
from cluster.model.node import Role

logger = logging.getLogger(__name__)

LIFE_FRACTION_MIN = 0.5
LIFE_FRACTION_MAX = 0.8
RETRY_S_MIN = 1.0
RETRY_S_MAX = 300.0
RENEWALS_APART_S = 1.0
"""Least time between two renewals, whatever role the manager answers with."""
_LOOK_S_MAX = 3600.0
"""Longest sleep: the wall clock may jump while we wait."""


def renew_after_s(identity: PeerIdentity, wished: Role, now: float, fraction: float) -> float:
    """Return the seconds until the certificate is to be renewed; 0: now.

    now: unix time. fraction: the point of its life, LIFE_FRACTION_MIN..LIFE_FRACTION_MAX, drawn
    once per certificate.
    """
    if identity.role is not wished:
        return 0.0
    issued = min(identity.not_before + BACKDATE_S, identity.not_after)
    return max(0.0, issued + fraction * (identity.not_after - issued) - now)


def retry_after_s(failures: int, rng: Random) -> float:
    """Return the pause after so many failures in a row (>= 1): doubled each time, with jitter."""
    return min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)


async def keep_renewed(
    directory: CertificateDirectory,
    *,
    wished_role: Callable[[], Role],
    changed: asyncio.Event,
    renew: Callable[[bytes], Awaitable[bytes]],
    on_renewed: Callable[[PeerIdentity], None],
    clock: Callable[[], float],
    rng: Random,
) -> None:
    """Renew the certificate in `directory` whenever it is time, until cancelled.

    wished_role: what the cluster wishes this node to be now; `changed` is set when it may differ.
    renew: request (PEM) -> certificate (PEM); asks a manager, or on a manager its own authority.
    on_renewed: called when the new certificate is on disk (reload the TLS contexts here).
    clock: unix time, seconds.
    """
    _, identity = directory.load_at_any_time()
    fraction = rng.uniform(LIFE_FRACTION_MIN, LIFE_FRACTION_MAX)
    failures = 0
    while True:
        changed.clear()
        wait_s = renew_after_s(identity, wished_role(), clock(), fraction)
        if wait_s <= 0:
            try:
                identity = await _renew(directory, renew, clock())
            except (ClusterError, CertificateError, OSError) as error:
                failures += 1
                logger.warning("certificate not renewed, will retry: error=%s", error)
                await asyncio.sleep(retry_after_s(failures, rng))
                continue
            failures = 0
            fraction = rng.uniform(LIFE_FRACTION_MIN, LIFE_FRACTION_MAX)
            wait_s = RENEWALS_APART_S
            logger.info(
                "certificate renewed: role=%s not_after=%d", identity.role, identity.not_after
            )
            on_renewed(identity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait_s, _LOOK_S_MAX)):
                await changed.wait()


async def _renew(
    directory: CertificateDirectory, renew: Callable[[bytes], Awaitable[bytes]], now: float
) -> PeerIdentity:
    credentials, old = directory.load_at_any_time()
    request = new_request()
    certificate = await renew(request.csr)
    identity = verify_untrusted(certificate, credentials.ca, now)
    if identity.node != old.node:
        raise CertificateError(f"asked for a certificate of {old.node}, got one of {identity.node}")
    directory.save(Credentials(credentials.ca, certificate, request.key))
    return identity
