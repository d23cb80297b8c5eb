"""Where the nodes of local clusters answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.local.host_network import hold_free
from cluster.local.layout import load, make_layout, profile, save
from cluster.model.errors import Invalid


def test_a_layout_is_read_back(tmp_path: Path) -> None:
    layout = replace(make_layout(tmp_path / "x", 1, 1), host_network=3)
    save(layout)
    assert load(tmp_path / "x") == layout
    assert [n.host_address for n in layout.nodes] == ["127.0.3.101", "127.0.3.102"]


def test_a_layout_of_an_older_version(tmp_path: Path) -> None:
    (tmp_path / "local.json").write_text('{"managers":1,"workers":0}')
    assert load(tmp_path).nodes[0].host_address == "127.0.0.101"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"managers":"x"}'])
def test_a_broken_layout_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "local.json").write_text(text)
    with pytest.raises(Invalid, match="no local cluster"):
        load(tmp_path)


def test_a_network_has_one_holder() -> None:
    first, holder = hold_free()
    with holder:
        second, other = hold_free()
        other.close()
        assert second > first


def test_many_nodes_on_few_cores_are_patient() -> None:
    assert [profile(nodes, cores=2) for nodes in (5, 16, 17)] == ["local", "local", "lan"]
