"""What the daemon says when it cannot go on."""

from __future__ import annotations

from cluster.node.daemon import causes


def test_the_cause_is_named_from_below_the_task_groups() -> None:
    disk, port = OSError("no space left on device"), OSError("address in use")
    inner = ExceptionGroup("unhandled errors in a TaskGroup", [disk])
    assert causes(ExceptionGroup("outer", [ExceptionGroup("middle", [inner]), port])) == [
        disk,
        port,
    ]
