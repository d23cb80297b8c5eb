"""How far a service is."""

from __future__ import annotations

from cluster.cli.document import Document
from cluster.cli.progress import status_of

WEB = Document({"Spec": {"Mode": {"Replicated": {"Replicas": 2}}}})
GLOBAL = Document({"Spec": {"Mode": {"Global": {}}}})
UP = {"n1": "ready", "n2": "ready"}


def task(
    slot: int, state: str, *, at: int = 0, desired: str = "running", node: str = "n1", err: str = ""
) -> Document:
    return Document({
        "Slot": slot, "NodeID": node, "CreatedAt": f"2026-01-01T00:00:{at:02d}Z",
        "DesiredState": desired, "Status": {"State": state, "Err": err},
    })  # fmt: skip


def test_counts_running_tasks() -> None:
    status = status_of(WEB, [task(1, "running"), task(2, "preparing")], UP)
    assert (status.running, status.wanted, status.is_converged) == (1, 2, False)
    assert status.slots == {"1": "running", "2": "preparing"}
    assert status_of(WEB, [task(1, "running"), task(2, "running")], UP).is_converged


def test_history_does_not_count() -> None:
    tasks = [task(1, "running", desired="shutdown"), task(1, "starting", at=5), task(2, "running")]
    assert not status_of(WEB, tasks, UP).is_converged


def test_tasks_on_dead_nodes_do_not_count() -> None:
    tasks = [task(1, "running"), task(2, "running", node="n2")]
    assert not status_of(WEB, tasks, {"n1": "ready", "n2": "down"}).is_converged


def test_errors_are_shown() -> None:
    status = status_of(WEB, [task(1, "rejected", err="no such command")], UP)
    assert status.slots == {"1": "no such command"}


def test_global_services_want_what_was_scheduled() -> None:
    assert not status_of(GLOBAL, [], UP).is_converged
    tasks = [task(0, "running"), task(0, "starting", node="n2")]
    status = status_of(GLOBAL, tasks, UP)
    assert (status.running, status.wanted) == (1, 2)
    assert status.slots == {"n1": "running", "n2": "starting"}


def test_no_replicas_is_converged() -> None:
    none = Document({"Spec": {"Mode": {"Replicated": {"Replicas": 0}}}})
    assert status_of(none, [], UP).is_converged
