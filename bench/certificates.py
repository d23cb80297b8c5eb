"""Certificates of a made-up cluster, one directory for each node."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cluster.ca.authority import node_id_of_request_untrusted
from cluster.ca.certificates import issue, new_request, new_root_ca
from cluster.ca.files import CertificateDirectory, Credentials
from cluster.model.ids import ClusterId, NodeId
from cluster.model.node import Role

CLUSTER = ClusterId("benchmark")
NOW = datetime.now(tz=UTC).timestamp()


def make_certificates(directory: Path, count: int) -> list[NodeId]:
    """Make a root and `count` nodes, all managers, each below `directory` by its id."""
    root = new_root_ca(NOW)
    nodes: list[NodeId] = []
    for _ in range(count):
        request = new_request()
        node = node_id_of_request_untrusted(request.csr)
        certificate = issue(
            root,
            request.csr,
            node=node,
            role=Role.MANAGER,
            cluster=CLUSTER,
            now=NOW,
            validity_s=86400.0,
        )
        made = Credentials(root.certificate, certificate, request.key)
        CertificateDirectory(directory / node).save(made)
        nodes.append(node)
    return nodes
