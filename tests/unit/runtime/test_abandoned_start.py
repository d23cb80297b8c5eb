"""A start that takes too long is given up, and whoever is at it can see that."""

from __future__ import annotations

import socket

import pytest

from cluster.runtime.base import RuntimeFailure
from cluster.runtime.launch import Launch, encode
from cluster.runtime.launcher import Launcher
from tests.unit.virtual_time import virtual


@virtual
async def test_the_daemon_hangs_up_before_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Launch(directory="web.1", arguments=("true",))
    control, zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    starter = Launcher()
    monkeypatch.setattr(starter, "_running_zygote", lambda: control)
    with control, zygote:
        with pytest.raises(RuntimeFailure, match="did not start in 30 s"):
            await starter.launch(task)
        _, (descriptor,), _, _ = socket.recv_fds(zygote, 1, 1)
        with socket.socket(fileno=descriptor) as daemon:
            assert encode(task) == daemon.recv(65536, socket.MSG_DONTWAIT)
            assert daemon.recv(1, socket.MSG_DONTWAIT) == b""
