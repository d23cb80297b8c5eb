"""Tasks -> Docker's JSON (pure)."""

from __future__ import annotations

from cluster.api.docker_json.fields import Json
from cluster.api.docker_json.network import attached_network_view
from cluster.api.docker_json.service_view import (
    meta_view,
    port_view,
    task_spec_view,
    with_prefix,
)
from cluster.api.docker_json.text import timestamp
from cluster.model.task import Task, TaskState
from cluster.state.snapshot import Snapshot


def task_view(task: Task, snapshot: Snapshot) -> Json:
    """Return a task as `GET /tasks/{id}` shows it."""
    view: Json = {
        "ID": task.id,
        **meta_view(task.meta),
        "Labels": {},
        "Spec": task_spec_view(task.spec),
        "ServiceID": task.service,
    }
    if task.slot:
        view["Slot"] = task.slot
    if task.node:
        view["NodeID"] = task.node
    view["Status"] = _status(task)
    view["DesiredState"] = state_name(task.desired_state)
    if task.attachments:
        view["NetworksAttachments"] = [
            {
                "Network": attached_network_view(snapshot.networks[a.network]),
                "Addresses": [with_prefix(a.address, a.network, snapshot)],
            }
            for a in task.attachments
            if a.network in snapshot.networks
        ]
    return view


def state_name(state: TaskState) -> str:
    """Return Docker's word for a state."""
    return state.name.lower()


def _status(task: Task) -> Json:
    status = task.status
    view: Json = {
        "Timestamp": timestamp(status.timestamp),
        "State": state_name(status.state),
        "Message": status.message,
    }
    if status.error:
        view["Err"] = status.error
    if task.node and status.state >= TaskState.STARTING:
        view["ContainerStatus"] = {
            "ContainerID": task.id,
            "PID": status.pid,
            "ExitCode": status.exit_code,
        }
    ports = task.host_ports if status.state is TaskState.RUNNING else ()
    view["PortStatus"] = {"Ports": [port_view(port) for port in ports]} if ports else {}
    return view
