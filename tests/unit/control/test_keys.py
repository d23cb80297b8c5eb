"""The key ring: scenarios are in `testdata/keys.txt`; here is what holds in all of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cluster.control.keys import (
    KEY_BYTES,
    KEYS_MAX,
    LOOK_S,
    OVERDUE_S,
    first_keys,
    is_settled,
    next_wakeup,
    overdue,
    ring_digest,
    ring_text,
)
from cluster.model.cluster import GossipKey, KeyState
from cluster.model.ids import NodeId
from cluster.model.node import NodeState
from cluster.state.changes import SetNodeState
from tests.unit.control.world import START, World

NODES: tuple[str, ...] = ("a", "b", "c")


def world() -> World:
    made = World()
    made.handle("cluster\n" + "\n".join(f"node {name}" for name in NODES))
    return made


def ring_of(made: World) -> tuple[GossipKey, ...]:
    assert made.snapshot.cluster is not None
    return made.snapshot.cluster.gossip_keys


def primary_of(ring: tuple[GossipKey, ...]) -> int:
    [key] = [key.id for key in ring if key.state is KeyState.PRIMARY]
    return key


def test_a_new_cluster_seals_with_one_fresh_key() -> None:
    [key] = first_keys(lambda size: b"k" * size, 5.0)
    assert (key.state, key.since) == (KeyState.PRIMARY, 5.0)
    assert key.secret == b"k" * KEY_BYTES
    assert "kkk" not in repr(key)


def test_no_text_of_a_ring_has_its_secrets() -> None:
    ring = first_keys(lambda size: b"k" * size, 5.0)
    assert ring_text(ring) == "1 primary"
    assert b"k" * 4 not in ring_digest(ring)


def test_a_ring_is_another_with_any_id_state_or_secret_but_not_with_other_times() -> None:
    [key] = first_keys(lambda size: b"k" * size, 5.0)
    others = [
        replace(key, id=2),
        replace(key, state=KeyState.RETIRED),
        replace(key, secret=b"K" * KEY_BYTES),
    ]
    digests = {ring_digest((other,)) for other in [key, *others]}
    assert len(digests) == 4
    assert ring_digest((replace(key, since=6.0),)) in digests
    assert ring_digest((key, others[0])) != ring_digest((others[0],))


def test_it_looks_often_only_while_a_key_waits() -> None:
    made = world()
    assert next_wakeup(made.snapshot) is None
    assert is_settled(made.snapshot, START + 43_199)
    assert not is_settled(made.snapshot, START + 43_200)
    made.handle("rotate")
    assert next_wakeup(made.snapshot) == LOOK_S
    made.handle("hold a b c\nturn")
    assert next_wakeup(made.snapshot) is None
    assert not is_settled(made.snapshot, START)


def test_a_node_that_keeps_a_key_waiting_is_named_unless_it_is_down() -> None:
    made = world()
    made.handle("rotate\nnode c state=down\nhold a")
    held = {NodeId("a"): ring_digest(ring_of(made))}
    assert overdue(made.snapshot, held, START + OVERDUE_S - 1) == []
    assert overdue(made.snapshot, held, START + OVERDUE_S) == ["b"]
    made.handle("hold a b\nat 60\nturn")
    assert overdue(made.snapshot, held, START + OVERDUE_S) == []


STEPS = st.one_of(
    st.tuples(st.sampled_from(["take", "hold", "down", "up"]), st.sampled_from(NODES)),
    st.tuples(st.sampled_from(["rotate", "forget", "turn"]), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["1", "11", "700", "5000", "50000"])),
)


@given(st.lists(STEPS, max_size=60))
def test_nodes_that_are_up_can_always_open_what_any_of_them_seals(
    steps: list[tuple[str, str]],
) -> None:
    """Nodes take a ring (into use) and hold it (on disk, and say so) whenever they like."""
    made = world()
    in_use = dict.fromkeys(NODES, ring_of(made))
    made.handle("hold a b c")
    clock = 0.0
    newest = 1
    for verb, word in steps:
        is_up = word in NODES and made.snapshot.nodes[NodeId(word)].state is NodeState.READY
        match verb:
            case "take" if is_up:
                in_use[word] = ring_of(made)
            case "hold" if is_up and in_use[word] == ring_of(made):
                made.handle(f"hold {word}")
            case "down":
                made.apply([SetNodeState(NodeId(word), NodeState.DOWN, "")])
            case "up":  # its session tells it the ring before it is READY
                in_use[word] = ring_of(made)
                made.apply([SetNodeState(NodeId(word), NodeState.READY, "")])
            case "wait":
                clock += float(word)
                made.handle(f"at {clock}")
            case "rotate" | "forget" | "turn":
                made.handle(verb)
            case _:
                pass
        ring = ring_of(made)
        ids = [key.id for key in ring]
        assert ids == sorted(set(ids))
        assert ids[-1] in (newest, newest + 1)
        assert len(ring) <= KEYS_MAX
        newest = ids[-1]
        primary_of(ring)
        up = [n for n in NODES if made.snapshot.nodes[NodeId(n)].state is NodeState.READY]
        sealing = {primary_of(in_use[name]) for name in up}
        for name in up:
            assert sealing <= {key.id for key in in_use[name]}, (name, in_use)
