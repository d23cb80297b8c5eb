"""Writing firewall tables: the sandboxes' and the node's.

A change is written as the difference; where that is refused (somebody flushed the table), or what
is there is not known, as everything. Sandboxes on the same networks get the same text, computed
once, and are written several at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataplane.diff import SetRules, SetServices
from dataplane.kernel import ingress_rules, vip_rules
from dataplane.kernel.names import sandbox_path
from dataplane.kernel.netns import run_in_each
from dataplane.kernel.nftables import Nft, NftError, release_memory
from dataplane.plan import VirtualService
from dataplane.state import IngressRules

_LARGE_LENGTH = 16 << 10
"""Characters of one table's commands from which on memory matters more than waiting."""
_THREADS_MAX = 8
_THREADS_MAX_LARGE = 2


@dataclass(frozen=True, slots=True)
class _Writing:
    difference: str
    """Empty: what is there is not known."""
    everything: str

    @property
    def length(self) -> int:
        return len(self.everything)


class RuleWriter:
    """Writes the tables, and remembers what it wrote to write differences."""

    def __init__(self, directory: Path, nft: Nft, *, has_egress_hook: bool) -> None:
        self._directory = directory
        self._nft = nft
        self._has_egress_hook = has_egress_hook
        self._rotation = 0
        self._services: dict[int, vip_rules.Rendered] = {}
        """By the id of the services, which the value keeps alive."""
        self._rules: ingress_rules.Rendered | None = None

    def set_services(self, operations: Sequence[SetServices]) -> dict[str, Exception]:
        """Perform several `SetServices`; return the errors by sandbox."""
        self._rotation += 1
        known: dict[tuple[int, int], _Writing] = {}
        todo: dict[Path, _Writing] = {}
        for operation in operations:
            key = (id(operation.before), id(operation.after))
            if key not in known:
                known[key] = self._writing(operation)
            todo[sandbox_path(self._directory, operation.sandbox)] = known[key]
        length = max((writing.length for writing in known.values()), default=0)
        threads_max = _THREADS_MAX if length < _LARGE_LENGTH else _THREADS_MAX_LARGE
        errors = run_in_each(todo, lambda path: self._write(todo[path]), threads_max)
        self._forget_all_but({id(operation.after) for operation in operations})
        if length >= _LARGE_LENGTH:
            release_memory()
        by_path = {sandbox_path(self._directory, o.sandbox): o.sandbox for o in operations}
        return {by_path[path]: error for path, error in errors.items()}

    def set_rules(self, operation: SetRules) -> None:
        """Perform `SetRules`.

        Raises:
            NftError: the rules were refused; the old ones are in effect.
        """
        self._rotation += 1
        after = self._rendered_rules(operation.after)
        difference = ""
        if operation.before is not None and operation.before.base == operation.after.base:
            before = self._rendered_rules(operation.before)
            difference = ingress_rules.delta(before, after, self._rotation)
        self._rules = after
        writing = _Writing(difference, ingress_rules.full(after, self._rotation))
        self._write(writing)
        if writing.length >= _LARGE_LENGTH:
            release_memory()

    def _write(self, writing: _Writing) -> None:
        if writing.difference:
            try:
                self._nft.run(writing.difference)
            except NftError:
                pass  # Somebody changed the table: it is not what we think.
            else:
                return
        self._nft.run(writing.everything)

    def _writing(self, operation: SetServices) -> _Writing:
        after = self._rendered(operation.after)
        everything = vip_rules.full(after, self._rotation)
        if operation.before is None:
            return _Writing("", everything)
        before = self._rendered(operation.before)
        return _Writing(vip_rules.delta(before, after, self._rotation), everything)

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
        return ingress_rules.render(rules, has_egress_hook=self._has_egress_hook)
