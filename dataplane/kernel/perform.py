"""Performing operations: each goes to the module that knows its place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import assert_never

from dataplane import diff
from dataplane.kernel import conntrack, inventory, names, networks, nft, node, sandboxes
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.ingress_rules import Abilities
from dataplane.kernel.netns import run_in_namespace
from dataplane.kernel.nftables import Nft, NftError
from dataplane.kernel.rule_writer import RuleWriter
from dataplane.plan import Protocol

_OnNode = diff.MakeBase | diff.RemoveBase | diff.AddPeers | diff.DropPeers | diff.SetRules
_OnNetwork = (
    diff.MakeNetwork | diff.SetSegment | diff.AddRemotes | diff.DropRemotes | diff.RemoveNetwork
)
_OnSandbox = diff.MakeSandbox | diff.Plug | diff.Unplug | diff.RemoveSandboxes
_REFUSALS = (OSError, NftError, ValueError)
"""What the kernel and the libraries say when they can't; anything else is a bug."""


@dataclass(slots=True)
class Failures:
    """What went wrong, by whom it concerns; the first error of each place."""

    node: list[str] = field(default_factory=list[str])
    networks: dict[str, str] = field(default_factory=dict[str, str])
    sandboxes: dict[str, str] = field(default_factory=dict[str, str])
    leftovers: list[str] = field(default_factory=list[str])

    def __len__(self) -> int:
        return len(self.node) + len(self.networks) + len(self.sandboxes) + len(self.leftovers)

    def add(self, operation: diff.Operation, error: Exception) -> None:
        """Take note of an operation that failed."""
        text = f"{_subject(operation)}: {error}"
        match operation:
            case diff.RemoveSandboxes():
                self.leftovers.append(text)
            case (
                diff.MakeNetwork(network=network)
                | diff.SetSegment(network=network)
                | diff.AddRemotes(network=network)
                | diff.DropRemotes(network=network)
                | diff.RemoveNetwork(network=network)
            ):
                self.networks.setdefault(network, text)
            case (
                diff.MakeSandbox(sandbox=str(sandbox))
                | diff.Plug(sandbox=str(sandbox))
                | diff.Unplug(sandbox=str(sandbox))
                | diff.SetServices(sandbox=str(sandbox))
                | diff.ForgetFlows(sandbox=str(sandbox))
                | diff.ForgetGone(sandbox=str(sandbox))
            ):
                self.sandboxes.setdefault(sandbox, text)
            case _:
                self.node.append(text)

    def concerns(self, operation: diff.Operation) -> bool:
        """Return whether an operation is about a sandbox that is in trouble already."""
        return getattr(operation, "sandbox", None) in self.sandboxes


class Performer:
    """Performs operations on this node.

    directory: where namespaces are pinned. kernel: what it is able to do.
    """

    def __init__(self, directory: Path, nft: Nft, kernel: Abilities) -> None:
        self._directory = directory
        self._nft = nft
        self._rules = RuleWriter(directory, nft, kernel)
        self.kernel = kernel
        self.forgotten = 0
        """Flows that the kernel was asked to forget, of whatever kind."""

    def perform(self, operations: Iterable[diff.Operation]) -> Failures:
        """Perform all operations and return what went wrong.

        One that fails doesn't keep the others from being tried, but for those on the same sandbox:
        a single VNI that is taken must not stop all services of the node.
        """
        failures = Failures()
        for is_services, group in groupby(operations, _is_services):
            # Lazily: an operation is looked at when those before it have been performed.
            todo = (operation for operation in group if not failures.concerns(operation))
            if is_services:
                self._set_services(todo, failures)
                continue
            for operation in todo:
                try:
                    self._perform(operation)
                except _REFUSALS as error:
                    failures.add(operation, error)
        return failures

    def _set_services(self, operations: Iterable[diff.Operation], failures: Failures) -> None:
        todo = {o.sandbox: o for o in operations if isinstance(o, diff.SetServices)}
        for sandbox, error in self._rules.set_services(tuple(todo.values())).items():
            if not isinstance(error, _REFUSALS):
                raise error
            failures.add(todo[sandbox], error)

    def _perform(self, operation: diff.Operation) -> None:
        match operation:
            case (
                diff.MakeBase()
                | diff.RemoveBase()
                | diff.AddPeers()
                | diff.DropPeers()
                | diff.SetRules()
            ):
                self._on_node(operation)
            case (
                diff.MakeNetwork()
                | diff.SetSegment()
                | diff.AddRemotes()
                | diff.DropRemotes()
                | diff.RemoveNetwork()
            ):
                self._on_network(operation)
            case diff.ForgetFlows() | diff.ForgetGone():
                self._forget(operation)
            case diff.SetServices():
                raise AssertionError("services are set several at a time")
            case _:
                self._on_sandbox(operation)

    def _on_node(self, operation: _OnNode) -> None:
        has_hook = self.kernel.has_egress_hook
        match operation:
            case diff.MakeBase():
                node.make_base(operation.base, has_egress_hook=has_hook)
            case diff.RemoveBase():
                node.remove_base(self._nft)
            case diff.AddPeers():
                node.add_peers(operation, has_egress_hook=has_hook)
            case diff.DropPeers():
                node.drop_peers(operation.peers)
            case diff.SetRules():
                self._rules.set_rules(operation)
            case _:
                assert_never(operation)

    def _on_network(self, operation: _OnNetwork) -> None:
        match operation:
            case diff.MakeNetwork():
                networks.make_network(self._directory, operation.network)
            case diff.SetSegment():
                networks.set_segment(self._directory, operation)
            case diff.AddRemotes():
                networks.add_remotes(self._directory, operation)
            case diff.DropRemotes():
                networks.drop_remotes(self._directory, operation)
            case diff.RemoveNetwork():
                networks.remove_network(self._directory, operation.network)
            case _:
                assert_never(operation)

    def _on_sandbox(self, operation: _OnSandbox) -> None:
        match operation:
            case diff.MakeSandbox():
                sandboxes.make_sandbox(self._directory, operation.sandbox)
            case diff.Plug():
                sandboxes.plug(self._directory, operation)
            case diff.Unplug():
                sandboxes.unplug(self._directory, operation)
            case diff.RemoveSandboxes():
                sandboxes.remove_sandboxes(self._directory, operation)
            case _:
                assert_never(operation)

    def _forget(self, operation: diff.ForgetFlows | diff.ForgetGone) -> None:
        def forget() -> None:
            with Channel(NETLINK_NETFILTER) as channel:
                # To forget, the kernel looks at every connection of the machine, for each flow.
                flows = [f for f in operation.flows if f.protocol is not Protocol.UDP]
                datagrams = [f for f in operation.flows if f.protocol is Protocol.UDP]
                if datagrams and not _is_without_datagrams(channel):
                    flows += datagrams
                channel.request(*map(conntrack.forget, flows))
                self.forgotten += len(flows)

        name = operation.sandbox
        place = None if name is None else names.sandbox_path(self._directory, name)
        run_in_namespace(place, forget)


def _is_without_datagrams(channel: Channel) -> bool:
    """Tell whether the rules of the channel's namespace say that they never balanced any."""
    dump = channel.dump(inventory.list_elements(names.TABLE, nft.DATAGRAMS))
    return inventory.is_known_empty(dump)


def _is_services(operation: diff.Operation) -> bool:
    return isinstance(operation, diff.SetServices)


def _subject(operation: diff.Operation) -> str:
    """Return what an operation is about, for a message."""
    what = type(operation).__name__
    for kind in ("network", "sandbox"):
        identifier = getattr(operation, kind, None)
        if identifier is not None:
            return f"{what} {kind} {identifier}"
    return f"{what} node"
