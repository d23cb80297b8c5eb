"""Round-robin balancing as nftables text (pure).

A `Target` is one address (or port) that is balanced. It becomes a chain with one rule,
`dnat to numgen inc mod N map {0: ..., 1: ...}`, and an element of a verdict map that leads there;
without backends it becomes an element of a set whose members are rejected. An empty chain named
after a digest of everything says after a restart whether a table holds what it should.

The kernel commits a transaction without letting others run: thousands of targets at once hold up
every process on that core for 0.1-0.3 s (measured), this daemon's event loop with them, and their
parse tree takes tens of MB. So large changes, and large new tables, are several transactions: each
target changes in one of them as a whole, and the chain that says that the table holds what it
should is added by the last.

Invariant: `changes(before, after)` applied to a table rendered from `before` gives the table
rendered from `after` (up to where the turn begins), in one transaction.

`numgen` starts over whenever its rule is rewritten, so each rewriting begins at another backend
(`rotation`): otherwise a service that changes often would prefer its first ones.

Source: nft(8). Syntax is kept to what nft 1.0.6 parses: a newline before each closing brace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dataplane.kernel.names import GENERATION

DATAGRAMS = "datagrams"
"""The set that has an element once any datagram was balanced: most tables never balance one."""
NOTE_DATAGRAMS = f"meta l4proto udp add @{DATAGRAMS} {{ meta l4proto }}"
"""A rule ahead of the one that balances: both see the first packet of each flow."""
TARGETS_MAX = 64
"""That one transaction adds or changes: about 20 ms of the kernel's time."""
_LAYOUT = "2"
"""Changes whenever the same plan is written differently: the next version then rewrites tables."""


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is balanced."""

    chain: str
    key: str
    """Its element in the map and in the set of rejected ones."""
    match: str
    """Ahead of `dnat` in its rule; empty or ends with a space."""
    backends: tuple[str, ...]
    may_be_datagrams: bool

    def rules(self, rotation: int) -> list[str]:
        """Return the rules of its chain."""
        count = len(self.backends)
        first = rotation % count
        turned = (*self.backends[first:], *self.backends[:first])
        entries = ", ".join(f"{number} : {backend}" for number, backend in enumerate(turned))
        balance = f"{self.match}dnat to numgen inc mod {count} map {{ {entries} }}"
        return [NOTE_DATAGRAMS, balance] if self.may_be_datagrams else [balance]


@dataclass(frozen=True, slots=True)
class Balancer:
    """Where the targets of a table are kept."""

    table: str
    """Family and name."""
    map: str
    key_type: str
    rejected: str
    """The set of the targets without backends."""


def digest(parts: Iterable[str]) -> str:
    """Return a short name for what `parts` say."""
    state = hashlib.sha256(_LAYOUT.encode())
    for part in parts:
        state.update(part.encode() + b"\n")
    return state.hexdigest()[:24]


def generation_chain(name: str) -> str:
    """Return the name of the chain that says that a table holds what `name` is the digest of."""
    return GENERATION + name


def describe(targets: Iterable[Target]) -> Iterator[str]:
    """Yield the lines that a digest of `targets` is made of."""
    for target in targets:
        yield f"{target.key}={','.join(target.backends)}"


def replace_table(table: str, body: Sequence[str]) -> str:
    """Return the commands that make `table` consist of `body`, whatever it was."""
    return "\n".join(
        (f"table {table} {{}}", f"delete table {table}", f"table {table} {{", *body, "}\n")
    )


def delete_table(table: str) -> str:
    """Return the commands that delete `table`, if it is there."""
    return f"table {table} {{}}\ndelete table {table}\n"


def set_block(name: str, kind: str, elements: Sequence[str], keyword: str = "set") -> list[str]:
    """Return the lines of a set or map in a table's body."""
    filled = [f"  elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f" {keyword} {name} {{", f"  type {kind}", *filled, " }"]


def datagrams_block(*, is_new: bool) -> list[str]:
    """Return the lines of the set `DATAGRAMS`; is_new: nothing was balanced so far."""
    elements = [] if is_new else ["  elements = { udp }"]
    return [
        f" set {DATAGRAMS} {{",
        "  type inet_proto",
        "  size 1",
        "  flags dynamic",
        *elements,
        " }",
    ]


def chain_block(name: str, rules: Sequence[str], hook: str = "") -> list[str]:
    """Return the lines of a chain in a table's body; hook: of a base chain."""
    head = [f"  {hook};"] if hook else []
    return [f" chain {name} {{", *head, *(f"  {rule}" for rule in rules), " }"]


def balancer_blocks(balancer: Balancer, targets: Sequence[Target], rotation: int) -> list[str]:
    """Return the lines of all targets in a table's body."""
    served = [target for target in targets if target.backends]
    rejected = [target.key for target in targets if not target.backends]
    verdicts = [f"{target.key} : goto {target.chain}" for target in served]
    blocks = set_block(balancer.rejected, balancer.key_type, rejected)
    for target in served:
        blocks.extend(chain_block(target.chain, target.rules(rotation)))
    blocks.extend(set_block(balancer.map, f"{balancer.key_type} : verdict", verdicts, "map"))
    return blocks


def addition(balancer: Balancer, targets: Sequence[Target], rotation: int) -> list[str]:
    """Return the commands that add new targets to a table that is there."""
    served = [target for target in targets if target.backends]
    rejected = [target.key for target in targets if not target.backends]
    commands = [f"table {balancer.table} {{"] if served else []
    for target in served:
        commands.extend(chain_block(target.chain, target.rules(rotation)))
    if served:
        verdicts = ", ".join(f"{target.key} : goto {target.chain}" for target in served)
        commands += ["}", f"add element {balancer.table} {balancer.map} {{ {verdicts} }}"]
    if rejected:
        elements = ", ".join(rejected)
        commands.append(f"add element {balancer.table} {balancer.rejected} {{ {elements} }}")
    return commands


def changes(
    balancer: Balancer, before: Sequence[Target], after: Sequence[Target], rotation: int
) -> list[list[str]]:
    """Return the commands that lead from `before` to `after`, a list for each target that changes.

    The others keep their turn.
    """
    old = {target.key: target for target in before}
    new = {target.key: target for target in after}
    return [
        list(_change(balancer, old, new, key, rotation))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def transactions(
    first: Sequence[str], parts: Sequence[Sequence[str]], last: Sequence[str], parts_max: int
) -> tuple[str, ...]:
    """Return transactions of at most `parts_max` parts each: one, if all fit into it.

    first: commands ahead of the first part; last: after the last one.
    """
    groups = [parts[at : at + parts_max] for at in range(0, len(parts), parts_max)] or [[]]
    made = [[command for part in group for command in part] for group in groups]
    made[0][:0] = first
    made[-1] += last
    return tuple("\n".join(commands) + "\n" for commands in made)


def additions(balancer: Balancer, targets: Sequence[Target], rotation: int) -> list[list[str]]:
    """Return `addition` in parts that each are enough for a transaction."""
    return [
        addition(balancer, targets[at : at + TARGETS_MAX], rotation)
        for at in range(0, len(targets), TARGETS_MAX)
    ]


def _change(
    balancer: Balancer,
    old: Mapping[str, Target],
    new: Mapping[str, Target],
    key: str,
    rotation: int,
) -> Iterator[str]:
    before, after = old.get(key), new.get(key)
    table = balancer.table
    was_served = before is not None and bool(before.backends)
    is_served = after is not None and bool(after.backends)
    if before is not None and not was_served and (after is None or is_served):
        yield f"delete element {table} {balancer.rejected} {{ {key} }}"
    if after is not None and not is_served and (before is None or was_served):
        yield f"add element {table} {balancer.rejected} {{ {key} }}"
    if before is not None and was_served:
        if not is_served:
            yield f"delete element {table} {balancer.map} {{ {key} : goto {before.chain} }}"
        yield f"flush chain {table} {before.chain}"
        if not is_served:
            yield f"delete chain {table} {before.chain}"
    if after is not None and is_served:
        yield f"add chain {table} {after.chain}"
        for rule in after.rules(rotation):
            yield f"add rule {table} {after.chain} {rule}"
        if not was_served:
            yield f"add element {table} {balancer.map} {{ {key} : goto {after.chain} }}"
