"""What is said of a manager that cannot be asked."""

from __future__ import annotations

import socket
import ssl

import pytest

from cluster.dispatch.calls import call, http_session
from cluster.model.errors import Unavailable


async def test_a_manager_that_is_not_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        async with http_session() as session:
            with pytest.raises(Unavailable) as failure:
                await call(session, address, "/", context=ssl.create_default_context())
    assert str(failure.value) == f"the manager at {address} cannot be reached: Connection refused"
