"""Firewall tables as text: golden files, and differences that end where a full table would.

`REWRITE=1 pytest ...` writes the golden files; read the diff before committing it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from dataplane.kernel import ingress_rules, nft, vip_rules
from dataplane.kernel.ingress_rules import LEAST_ABILITIES, Abilities
from dataplane.state import wanted_state
from tests.netns.world import VIP, Replica, World

TESTDATA = Path(__file__).parent / "testdata"
WEB = (Replica("a", 1, 11), Replica("b", 2, 12), Replica("c", 3, 13))
WORLD = World(3, WEB, WEB)
ABLE = Abilities()


def check_golden(name: str, actual: str) -> None:
    path = TESTDATA / name
    if os.environ.get("REWRITE"):
        path.write_text(actual)
    assert actual == path.read_text()


def only(transactions: tuple[str, ...]) -> str:
    (text,) = transactions
    return text


def services(world: World) -> vip_rules.Rendered:
    return vip_rules.render(world.plan(1).networks[0].services)


def rules(world: World, kernel: Abilities = ABLE) -> ingress_rules.Rendered:
    found = wanted_state(world.plan(1)).rules
    assert found is not None
    return ingress_rules.render(found, kernel)


def test_sandbox_table() -> None:
    check_golden("sandbox.nft", vip_rules.full(services(WORLD), 0))


def test_sandbox_change() -> None:
    before, after = services(WORLD), services(replace(WORLD, backends=WEB[:2]))
    check_golden("sandbox_change.nft", only(vip_rules.delta(before, after, 1)))


def test_node_tables() -> None:
    check_golden("node.nft", ingress_rules.full(rules(WORLD), 0))


def test_node_tables_with_what_every_kernel_has() -> None:
    text = ingress_rules.full(rules(WORLD, LEAST_ABILITIES), 0)

    assert "timeout" not in text
    assert "netdev" not in text
    assert "chain postrouting_mark" in text


def test_node_change() -> None:
    after = replace(WORLD, nodes=2, replicas=WEB[:2], backends=())
    text = only(ingress_rules.delta(rules(WORLD), rules(after), 1))
    check_golden("node_change.nft", text)


def test_rewriting_begins_at_another_backend() -> None:
    (target,) = services(WORLD).targets

    assert [re.findall(r"0 : (\S+),", target.rules(turn)[-1])[0] for turn in range(4)] == [
        "198.19.0.11",
        "198.19.0.12",
        "198.19.0.13",
        "198.19.0.11",
    ]


def test_a_table_that_takes_the_place_of_another_may_have_balanced_datagrams() -> None:
    noted = "elements = { udp }"
    for kind, rendered in ((vip_rules, services(WORLD)), (ingress_rules, rules(WORLD))):
        assert noted not in only(kind.build(rendered, 0, is_new=True))
        assert noted in only(kind.build(rendered, 0, is_new=False))
        assert noted in kind.full(rendered, 0)


def test_no_services_no_table() -> None:
    nothing = vip_rules.render(())

    assert nothing.digest == ""
    assert vip_rules.full(nothing, 0) == nft.delete_table(vip_rules.TABLE_NAME)


def test_digest_tells_what_a_table_holds() -> None:
    everything = {
        rules(world, kernel).digest
        for kernel in (ABLE, LEAST_ABILITIES, Abilities(timeouts_s=(("established", 600),)))
        for world in (
            WORLD,
            replace(WORLD, nodes=2),
            replace(WORLD, backends=WEB[:1]),
            replace(WORLD, ports=()),
            replace(WORLD, vxlan_port=4790),
        )
    }
    assert len(everything) == 15
    assert services(WORLD).digest == services(WORLD).digest


@dataclass
class Table:
    """What a table of balanced targets holds after some commands."""

    chains: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    served: dict[str, str] = field(default_factory=dict[str, str])
    rejected: set[str] = field(default_factory=set[str])

    def run(self, commands: Sequence[str]) -> None:
        """Run the commands; one that nft would refuse fails an assertion."""
        for command in commands:
            verb, kind, rest = command.split(" ", 2)
            rest = rest.removeprefix(f"{BALANCER.table} ")
            if kind == "element":
                self._element(verb, rest)
            elif kind == "rule":
                chain, rule = rest.split(" ", 1)
                self.chains[chain].append(rule)
            elif verb == "add":
                self.chains.setdefault(rest, [])
            elif verb == "flush":
                self.chains[rest].clear()
            else:
                assert not self.chains[rest]
                assert rest not in self.served.values()
                del self.chains[rest]

    def _element(self, verb: str, rest: str) -> None:
        place, _, element = rest.partition(" { ")
        key, _, chain = element.removesuffix(" }").partition(" : goto ")
        if place == BALANCER.rejected:
            assert (key in self.rejected) == (verb == "delete")
            self.rejected ^= {key}
        elif verb == "add":
            assert chain in self.chains
            self.served[key] = chain
        else:
            assert self.served.pop(key) == chain


BALANCER = nft.Balancer("ip t", "vips", "ipv4_addr", "rejected")


@st.composite
def targets(draw: st.DrawFn) -> tuple[nft.Target, ...]:
    keys = draw(st.sets(st.integers(1, 5)))
    backends = st.sets(st.sampled_from("abc")).map(lambda found: tuple(sorted(found)))
    return tuple(
        nft.Target(f"vip_{key}", str(key), "", draw(backends), may_be_datagrams=key % 2 == 0)
        for key in sorted(keys)
    )


@given(st.lists(targets(), max_size=5))
def test_changes_end_where_a_full_table_would(steps: list[tuple[nft.Target, ...]]) -> None:
    table = Table()
    before: tuple[nft.Target, ...] = ()
    for after in steps:
        for commands in nft.changes(BALANCER, before, after, 0):
            table.run(commands)
        before = after
        served = [target for target in before if target.backends]

        assert table.chains == {target.chain: target.rules(0) for target in served}
        assert table.served == {target.key: target.chain for target in served}
        assert table.rejected == {target.key for target in before if not target.backends}


def test_every_target_is_somewhere_in_the_text() -> None:
    text = vip_rules.full(services(replace(WORLD, backends=())), 0)

    assert f"elements = {{ {VIP} }}" in text
