"""What the daemon tells a supervisor, and how little a supervisor imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cluster.runtime.launch import HEADER, Launch, decode, encode

texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
lists = st.lists(texts, max_size=4).map(tuple)
launches = st.builds(
    Launch,
    directory=texts,
    sandbox=texts,
    root=texts,
    layer=texts,
    working_directory=texts,
    hostname=texts,
    user=texts,
    arguments=lists,
    cgroups=lists,
    hidden=lists,
    environment=st.lists(st.tuples(texts, texts), max_size=4).map(tuple),
    secrets=st.lists(st.tuples(texts, st.binary(max_size=50)), max_size=4).map(tuple),
)


def fields(launch: Launch) -> dict[str, object]:
    return {name: getattr(launch, name) for name in Launch.__slots__}


@given(launches)
def test_round_trip(launch: Launch) -> None:
    data = encode(launch)
    assert HEADER.unpack_from(data) == (len(data) - HEADER.size,)
    assert fields(decode(data[HEADER.size :])) == fields(launch)


def test_supervisors_import_little() -> None:
    root = str(Path(__file__).parents[3])
    code = f"import sys; sys.path.insert(0, {root!r}); import cluster.runtime.zygote as _\n"
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code + "print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    heavy = {"asyncio", "dataclasses", "typing", "pathlib", "json", "logging", "inspect", "re"}
    assert heavy.isdisjoint(output.stdout.split())
