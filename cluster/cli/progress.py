"""Waiting until a service is as wished, with docker's words."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import click

from cluster.cli.client import Client, segment
from cluster.cli.document import Document
from cluster.cli.failure import EXIT_INTERRUPTED

POLL_PERIOD_S = 0.2
"""Docker's own pace."""
MONITOR_S = 5.0
"""How long all tasks must run, when the service does not say."""
SLOTS_SHOWN_MAX = 20
"""Services with more tasks show only their sum."""

_PENDING = ("new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting")


@dataclass(frozen=True, slots=True)
class Status:
    """How far a service is."""

    running: int
    wanted: int
    slots: Mapping[str, str]
    """Slot (or node) -> what its newest task does, for people."""

    @property
    def is_converged(self) -> bool:
        """Return whether everything wished for runs."""
        return self.running >= self.wanted


def status_of(service: Document, tasks: list[Document], nodes: Mapping[str, str]) -> Status:
    """Return how far a service is (pure).

    `nodes`: id -> state. A task on a node that is down does not count.
    """
    newest: dict[str, Document] = {}
    for task in sorted(tasks, key=lambda t: t.text("CreatedAt")):
        if task.text("DesiredState") in ("running", "ready", "accepted"):
            newest[str(task.number("Slot") or task.text("NodeID"))] = task
    is_global = service.get("Spec.Mode.Global") is not None
    slots: dict[str, str] = {}
    running = 0
    for key, task in newest.items():
        state = task.text("Status.State")
        is_up = nodes.get(task.text("NodeID"), "") != "down"
        if state == "running" and is_up:
            running += 1
        slots[key] = task.text("Status.Err") if state not in ("running", *_PENDING) else state
    wanted = len(newest) if is_global else service.number("Spec.Mode.Replicated.Replicas")
    if is_global and not newest:
        wanted = 1  # not scheduled yet: unknown, but not nothing
    return Status(running, wanted, slots)


def wait_until_converged(daemon: Client, service_id: str, *, quiet: bool) -> None:
    """Print the progress until all tasks have run for the monitoring time.

    Ctrl-C ends the waiting, not what is waited for.
    """
    try:
        _wait(daemon, service_id, quiet=quiet)
    except KeyboardInterrupt:
        click.echo(
            "\nOperation continuing in background.\nUse `hivewire service ps "
            f"{service_id}` to check progress.",
            err=True,
        )
        raise SystemExit(EXIT_INTERRUPTED) from None


def _wait(daemon: Client, service_id: str, *, quiet: bool) -> None:
    converged_at: float | None = None
    shown = ""
    while True:
        service = daemon.get(f"/services/{segment(service_id)}")
        query = {"service": [service_id], "_up-to-date": ["true"]}
        tasks = daemon.get("/tasks", {"filters": query}).items()
        nodes = {n.text("ID"): n.text("Status.State") for n in daemon.get("/nodes").items()}
        status = status_of(service, tasks, nodes)
        now = time.monotonic()
        if not status.is_converged:
            converged_at = None
        elif converged_at is None:
            converged_at = now
        monitor_s = service.number("Spec.UpdateConfig.Monitor") / 1e9 or MONITOR_S
        left_s = None if converged_at is None else monitor_s - (now - converged_at)
        text = _text(status, left_s, service_id)
        if text != shown and not quiet:
            click.echo(text)
            shown = text
        if left_s is not None and left_s <= 0:
            return
        time.sleep(POLL_PERIOD_S)


def _text(status: Status, left_s: float | None, service_id: str) -> str:
    if left_s is not None and left_s <= 0:
        return f"verify: Service {service_id} converged"
    lines = [f"overall progress: {status.running} out of {status.wanted} tasks"]
    if left_s is not None:
        lines.append("verify: Waiting to verify that tasks are stable...")
    elif len(status.slots) <= SLOTS_SHOWN_MAX:
        lines += [f"{key}/{status.wanted}: {text}" for key, text in sorted(status.slots.items())]
    return "\n".join(lines)
