"""Writing firewall tables: the sandboxes' and the node's.

A change is written as the difference, a new table as what it is built of, both in transactions of
bounded size. Where that is refused (somebody flushed the table), or there is a table and what it
holds is not known, everything is written in one transaction: then there is no moment without rules.
Sandboxes on the same networks get the same text, computed once, and are written several at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.diff import SetRules, SetServices
from dataplane.kernel import ingress_rules, inventory, vip_rules
from dataplane.kernel.channel import NETLINK_NETFILTER, Channel
from dataplane.kernel.ingress_rules import Abilities
from dataplane.kernel.names import TABLE, sandbox_path
from dataplane.kernel.netns import run_in_each
from dataplane.kernel.nftables import Nft, NftError, release_memory
from dataplane.plan import VirtualService
from dataplane.state import IngressRules

_LARGE_TARGETS = 64
"""From so many on memory matters more than waiting."""
_THREADS_MAX = 8
_THREADS_MAX_LARGE = 2


@dataclass(frozen=True, slots=True)
class _Writing:
    difference: tuple[str, ...]
    """Transactions; none: what is there is not known, or nothing."""
    build: tuple[str, ...]
    """Transactions that make what is not there."""
    replace: Callable[[], str]
    """Returns the one that makes it whatever is there."""
    is_large: bool


class RuleWriter:
    """Writes the tables, and remembers what it wrote to write differences."""

    def __init__(self, directory: Path, nft: Nft, kernel: Abilities) -> None:
        self._directory = directory
        self._nft = nft
        self._kernel = kernel
        self._rotation = 0
        self._services: dict[int, vip_rules.Rendered] = {}
        """By the id of the services, which the value keeps alive."""
        self._rules: ingress_rules.Rendered | None = None

    def set_services(self, operations: Sequence[SetServices]) -> dict[str, Exception]:
        """Perform several `SetServices`; return the errors by sandbox."""
        self._rotation += 1
        known: dict[tuple[int, int, bool], _Writing] = {}
        todo: dict[Path, _Writing] = {}
        for operation in operations:
            key = (id(operation.before), id(operation.after), operation.is_new)
            if key not in known:
                known[key] = self._writing(operation)
            todo[sandbox_path(self._directory, operation.sandbox)] = known[key]
        is_large = any(writing.is_large for writing in known.values())
        threads_max = _THREADS_MAX_LARGE if is_large else _THREADS_MAX
        errors = run_in_each(todo, lambda path: self._write(todo[path]), threads_max)
        self._forget_all_but({id(operation.after) for operation in operations})
        if is_large:
            release_memory()
        by_path = {sandbox_path(self._directory, o.sandbox): o.sandbox for o in operations}
        return {by_path[path]: error for path, error in errors.items()}

    def set_rules(self, operation: SetRules) -> None:
        """Perform `SetRules`.

        Raises:
            NftError: the rules were refused; the old ones are in effect.
        """
        self._rotation += 1
        after, rotation = self._rendered_rules(operation.after), self._rotation
        difference: tuple[str, ...] = ()
        if operation.before is not None and operation.before.base == operation.after.base:
            before = self._rendered_rules(operation.before)
            difference = ingress_rules.delta(before, after, rotation)
        self._rules = after
        writing = _Writing(
            difference,
            () if difference else ingress_rules.build(after, rotation, is_new=operation.is_new),
            lambda: ingress_rules.full(after, rotation),
            is_large=len(after.targets) >= _LARGE_TARGETS,
        )
        self._write(writing)
        if writing.is_large:
            release_memory()

    def _write(self, writing: _Writing) -> None:
        if writing.difference:
            try:
                self._run(writing.difference)
            except NftError:
                pass  # Somebody changed the table: it is not what we think.
            else:
                return
        elif not _has_table():
            self._run(writing.build)
            return
        self._nft.run(writing.replace())

    def _run(self, transactions: Sequence[str]) -> None:
        for transaction in transactions:
            self._nft.run(transaction)

    def _writing(self, operation: SetServices) -> _Writing:
        after, rotation = self._rendered(operation.after), self._rotation
        difference: tuple[str, ...] = ()
        if operation.before and after.targets:
            difference = vip_rules.delta(self._rendered(operation.before), after, rotation)
        return _Writing(
            difference,
            () if difference else vip_rules.build(after, rotation, is_new=operation.is_new),
            lambda: vip_rules.full(after, rotation),
            is_large=len(after.targets) >= _LARGE_TARGETS,
        )

    def _rendered(self, services: tuple[VirtualService, ...]) -> vip_rules.Rendered:
        known = self._services.get(id(services))
        if known is None:
            known = self._services[id(services)] = vip_rules.render(services)
        return known

    def _forget_all_but(self, kept: set[int]) -> None:
        self._services = {key: value for key, value in self._services.items() if key in kept}

    def _rendered_rules(self, rules: IngressRules) -> ingress_rules.Rendered:
        if self._rules is not None and self._rules.rules is rules:
            return self._rules
        return ingress_rules.render(rules, self._kernel)


def _has_table() -> bool:
    """Return whether the calling thread's namespace has a table of ours, whatever it holds."""
    with Channel(NETLINK_NETFILTER) as channel:
        return bool(inventory.read_chains(channel.dump(inventory.list_chains()), TABLE))
