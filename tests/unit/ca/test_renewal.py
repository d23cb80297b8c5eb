"""Renewal: the decision, and the loop over real files."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from cluster.ca.certificates import BACKDATE_S, PeerIdentity, issue, new_request, new_root_ca
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.ca.renewal import RETRY_S_MAX, keep_renewed, renew_after_s, retry_after_s
from cluster.model.errors import Unavailable
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Role

NOW = 1_800_000_000.0
LIFE_S = 90 * 24 * 3600.0
NODE = NodeId("n" * 25)
CLUSTER = ClusterId("c" * 25)
FRESH = PeerIdentity(NODE, Role.WORKER, CLUSTER, NOW - BACKDATE_S, NOW + LIFE_S)


def test_renewed_at_the_given_part_of_its_life() -> None:
    assert renew_after_s(FRESH, Role.WORKER, NOW, 0.5) == pytest.approx(LIFE_S / 2)
    assert renew_after_s(FRESH, Role.WORKER, NOW + LIFE_S / 2, 0.8) == pytest.approx(LIFE_S * 0.3)
    assert renew_after_s(FRESH, Role.WORKER, NOW + LIFE_S * 0.6, 0.5) == 0
    assert renew_after_s(FRESH, Role.WORKER, NOW + 2 * LIFE_S, 0.8) == 0


def test_an_hour_long_certificate_is_not_renewed_at_birth() -> None:
    short = replace(FRESH, not_after=NOW + 3600)
    assert renew_after_s(short, Role.WORKER, NOW, 0.5) == pytest.approx(1800)


def test_another_role_is_wanted_now() -> None:
    assert renew_after_s(FRESH, Role.MANAGER, NOW, 0.5) == 0


def test_retries_slow_down_and_stay_bounded() -> None:
    rng = Random(3)
    assert 0.5 <= retry_after_s(1, rng) <= 1.0
    assert retry_after_s(10_000, rng) <= RETRY_S_MAX
    assert retry_after_s(6, rng) >= 16


async def test_the_loop_renews_for_a_new_role_and_survives_failures(tmp_path: Path) -> None:
    root = new_root_ca(NOW)
    directory = CertificateDirectory(tmp_path)

    def certificate(csr: bytes, role: Role) -> bytes:
        return issue(root, csr, node=NODE, role=role, cluster=CLUSTER, now=NOW, validity_s=LIFE_S)

    first = new_request()
    directory.save(Credentials(root.certificate, certificate(first.csr, Role.WORKER), first.key))
    attempts = 0
    renewed: asyncio.Future[PeerIdentity] = asyncio.get_running_loop().create_future()

    async def renew(csr: bytes) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise Unavailable("no manager")
        return certificate(csr, Role.MANAGER)

    async with asyncio.TaskGroup() as group:
        loop = group.create_task(
            keep_renewed(
                directory,
                wished_role=lambda: Role.MANAGER,
                changed=asyncio.Event(),
                renew=renew,
                on_renewed=renewed.set_result,
                clock=lambda: NOW,
                rng=Random(1),
            )
        )
        identity = await renewed
        loop.cancel()
    assert identity.role is Role.MANAGER
    assert attempts == 2
    loaded, _ = directory.load(NOW)
    assert loaded.key != first.key
