"""What can be said of a task before it starts: can it run, and what stands in its /etc.

Called by `process`. It looks at the file system, and changes nothing.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

from cluster.runtime import rootfs
from cluster.runtime.base import Execution, RuntimeFailure

HOST_IMAGE = "host"
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SECRET_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.-]+")
_HOSTNAME_LENGTH = 12
"""Docker: the first 12 characters of a container's id."""
_LOCALHOST = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""


def check(execution: Execution) -> None:
    """Check everything that can be checked before the start.

    Raises:
        RuntimeFailure: it can never start as asked; the text says why, in Docker's words.
    """
    root = image_root(execution.image)
    if not execution.command:
        raise RuntimeFailure("No command specified")
    signal_number(execution.stop_signal)
    for name, _ in execution.secrets:
        if not _SECRET_NAME.fullmatch(name):
            raise RuntimeFailure(f"{name!r} is no file name for a secret")
    directory = execution.working_directory or "/"
    search_path = dict(execution.environment).get("PATH", rootfs.DEFAULT_PATH)
    try:
        rootfs.find_user(root, execution.user)
        rootfs.check_directory(root, directory)
        rootfs.find_command(
            root, execution.command[0], search_path=search_path, working_directory=directory
        )
    except rootfs.Unrunnable as error:
        raise RuntimeFailure(str(error)) from error


def image_root(image: str) -> str:
    """Return the directory that becomes the root; empty: the machine's own.

    Raises:
        RuntimeFailure: the image is neither `host` nor a directory.
    """
    if image == HOST_IMAGE:
        return ""
    path = Path(image)
    if not path.is_absolute() or not path.is_dir():
        raise RuntimeFailure(f"No such image: {image}")
    resolved = str(path.resolve())
    return "" if resolved == "/" else resolved


def hostname(execution: Execution) -> str:
    """Return the host name that the task sees."""
    return execution.hostname or execution.task_id[:_HOSTNAME_LENGTH]


def etc_files(execution: Execution) -> dict[str, str]:
    """Return the files to bind into /etc, text by name; without a DNS server no resolv.conf."""
    hosts = [f"{address}\t{name}\n" for address, name in execution.init_hosts]
    files = {
        "hostname": f"{hostname(execution)}\n",
        "hosts": _LOCALHOST + "".join(hosts),
    }
    if execution.dns_server:
        lines = [f"nameserver {execution.dns_server}"]
        if execution.dns_search:
            lines.append(" ".join(["search", *execution.dns_search]))
        if execution.dns_options:
            lines.append(" ".join(["options", *execution.dns_options]))
        files["resolv.conf"] = "\n".join(lines) + "\n"
    return files


def signal_number(name: str) -> int:
    """Return the number of a signal given as `SIGTERM`, `TERM` or `15`; empty is SIGTERM.

    Raises:
        RuntimeFailure: there is no such signal.
    """
    upper = (name or "SIGTERM").upper()
    if upper.isdecimal() and int(upper) in signal.valid_signals():
        return int(upper)
    full = upper if upper.startswith("SIG") else f"SIG{upper}"
    if full not in signal.Signals.__members__:
        raise RuntimeFailure(f"Invalid signal: {name}")
    return int(signal.Signals[full])


def is_task_id(task_id: str) -> bool:
    """Whether `task_id` can name a directory."""
    return _TASK_ID.fullmatch(task_id) is not None
