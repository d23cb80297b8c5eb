"""Real tasks: confinement, survival of the daemon, networks, images.

Runs as root or in a user namespace (`unshare -Urnm`); what only root can have is skipped there.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

import pytest

from cluster.node.agent import open_resolver
from cluster.runtime.base import Execution, Exit, RuntimeFailure
from cluster.runtime.cgroups import Cgroups
from cluster.runtime.isolation import KEPT_CAPABILITIES
from cluster.runtime.launch import Launch, encode
from cluster.runtime.launcher import Launcher
from cluster.runtime.process import ProcessRuntime
from dataplane.dns.server import DnsServer
from dataplane.kernel.netns import create_namespace, delete_namespace, run_in_namespace
from dataplane.plan import Interface, Name, Network, NodePlan, Sandbox

_numbers = itertools.count(1)
ROOT = Path(__file__).parents[2]
DAEMON = """\
import asyncio, sys
from pathlib import Path
from cluster.runtime.base import Execution
from cluster.runtime.launcher import Launcher
from cluster.runtime.process import ProcessRuntime
async def main():
    runtime = ProcessRuntime(Path(sys.argv[1]))
    execution = Execution("adopted", "web.1", "host", tuple(sys.argv[2:]))
    await runtime.prepare(execution)
    print(await runtime.start(execution, None), flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""
COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"
BE_A_NAME_SERVER = """
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 53))
tcp = socket.create_server(("", 53))
asking = socket.create_connection(("127.0.0.11", 53), 5)
assert asking.getpeername() == ("127.0.0.11", 53)
"""
UP = ["ip", "link", "set", "lo", "up"]
CAP_NET_ADMIN = 12


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    probe = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip("no namespaces: run as root or under `unshare -Urnm`")


@pytest.fixture
async def runtime(tmp_path: Path) -> AsyncIterator[ProcessRuntime]:
    runtime = ProcessRuntime(tmp_path / "tasks", hidden=[tmp_path / "keys"])
    yield runtime
    for task_id in await runtime.adopt():
        await runtime.remove(task_id)
    await runtime.close()


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "network"
    create_namespace(path)
    yield path
    delete_namespace(path)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root file system with a shell, a few programs and their libraries."""
    root = tmp_path_factory.mktemp("image")
    for name in ("sh", "cat", "ls", "id", "hostname", "touch"):
        program = shutil.which(name)
        assert program is not None
        linked = subprocess.run(["ldd", program], check=True, capture_output=True, text=True)
        libraries = [word for word in linked.stdout.split() if word.startswith("/")]
        for file in (*libraries, program):
            target = root / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    (root / "etc").mkdir()
    (root / "etc/resolv.conf").symlink_to("../run/nowhere/resolv.conf")
    (root / "tmp").mkdir()
    return root


def execution(*command: str, image: str = "host") -> Execution:
    number = next(_numbers)
    # Control groups are the machine's, so ids must differ between test runs.
    return Execution(f"task{os.getpid()}x{number}", f"web.{number}", image, tuple(command))


def script(text: str) -> Execution:
    return execution("sh", "-c", text)


async def run(
    runtime: ProcessRuntime, task: Execution, sandbox: Path | None = None
) -> tuple[Exit, list[str]]:
    """Run a task to its end and return how it ended and its lines."""
    await runtime.prepare(task)
    await runtime.start(task, sandbox)
    ended = await runtime.wait(task.task_id)
    lines = runtime.logs(task.task_id, follow=False, tail=None, since_ns=0)
    return ended, [line.data.decode().rstrip("\n") async for line in lines]


def has_other_users() -> bool:
    return Path("/proc/self/uid_map").read_text().split()[2] != "1"


async def first_lines(runtime: ProcessRuntime, task_id: str, count: int) -> list[str]:
    lines: list[str] = []
    async for line in runtime.logs(task_id, follow=True, tail=0, since_ns=0):
        lines.append(line.data.decode().strip())
        if len(lines) == count:
            break
    return lines


def start_daemon(directory: Path, *command: str) -> tuple[subprocess.Popen[str], int]:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(directory), *command],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert daemon.stdout is not None
    return daemon, int(daemon.stdout.readline())


def kill(daemon: subprocess.Popen[str]) -> None:
    daemon.kill()
    daemon.wait()
    assert daemon.stdout is not None
    daemon.stdout.close()


async def test_a_task_outlives_its_daemon(tmp_path: Path, runtime: ProcessRuntime) -> None:
    daemon, pid = start_daemon(tmp_path / "tasks", "sh", "-c", COUNT)
    kill(daemon)
    assert await runtime.adopt() == ["adopted"]
    lines = await first_lines(runtime, "adopted", 3)
    assert [int(line) for line in lines] == list(range(int(lines[0]), int(lines[0]) + 3))
    adopted = Execution("adopted", "web.1", "host", ("true",))
    assert await runtime.start(adopted, None) == pid
    await runtime.stop("adopted", signal="SIGTERM", grace_s=10)
    assert await runtime.wait("adopted") == Exit(128 + signal.SIGTERM)


async def test_an_exit_without_a_daemon_is_kept(tmp_path: Path, runtime: ProcessRuntime) -> None:
    daemon, _ = start_daemon(tmp_path / "tasks", "sh", "-c", "sleep 0.1; echo done; exit 7")
    kill(daemon)
    assert await runtime.wait("adopted") == Exit(7)
    lines = runtime.logs("adopted", follow=True, tail=None, since_ns=0)
    assert [line.data async for line in lines] == [b"done\n"]


async def test_a_task_dies_with_its_supervisor(runtime: ProcessRuntime) -> None:
    task = script("sleep 1000 & echo ready; wait")
    await runtime.prepare(task)
    pid = await runtime.start(task, None)
    async for _ in runtime.logs(task.task_id, follow=True, tail=None, since_ns=0):
        break
    os.kill(pid, signal.SIGKILL)
    ended = await runtime.wait(task.task_id)
    assert (ended.code, bool(ended.message)) == (137, True)
    assert await runtime.start(task, None) == 0


async def test_another_zygote_takes_over(tmp_path: Path) -> None:
    launcher = Launcher()
    runtime = ProcessRuntime(tmp_path, launcher=launcher)
    assert (await run(runtime, script("true")))[0] == Exit(0)
    first = launcher.pid
    os.kill(first, signal.SIGKILL)
    assert (await run(runtime, script("exit 2")))[0] == Exit(2)
    assert launcher.pid != first
    for task_id in await runtime.adopt():
        await runtime.remove(task_id)
    await runtime.close()


async def test_what_a_command_leaves_behind_is_killed(runtime: ProcessRuntime) -> None:
    async with asyncio.timeout(10):
        ended, lines = await run(runtime, script("(trap '' TERM; sleep 1000) & echo $$; exit 5"))
    assert (ended, lines) == (Exit(5), ["2"])


async def test_a_task_is_confined(runtime: ProcessRuntime) -> None:
    text = "cat /proc/self/status; ls /proc/self/fd; echo 1 > /proc/sys/kernel/domainname"
    _, lines = await run(runtime, script(text))
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    kept = sum(1 << capability for capability in KEPT_CAPABILITIES)
    assert not kept & 1 << CAP_NET_ADMIN
    for name in ("CapBnd", "CapEff", "CapPrm"):
        assert int(status[name], 16) == kept
    assert (int(status["CapInh"], 16), status["NoNewPrivs"]) == (0, "1")
    assert {"0", "1", "2", "3"} >= {line for line in lines if line.isdecimal()}
    assert any("Read-only file system" in line for line in lines)


async def test_signals_are_not_ignored_by_inheritance(runtime: ProcessRuntime) -> None:
    _, lines = await run(runtime, script("grep -E 'Sig(Ign|Blk)' /proc/self/status"))
    blocked, ignored = (int(line.split()[1], 16) for line in lines)
    assert (blocked, ignored & 0x7FFFFFFF) == (0, 0), "above are two of the C library's own"


async def test_a_task_sees_its_own_names_and_secrets(
    tmp_path: Path, runtime: ProcessRuntime
) -> None:
    task = replace(
        script(
            "env | sort; hostname; cat /etc/hosts /etc/resolv.conf /run/secrets/key; ls -a $DIR"
        ),
        environment=(("A", "b c"), ("DIR", str(tmp_path / "tasks"))),
        hostname="box",
        init_hosts=(("10.0.0.5", "box"),),
        dns_search=("example.com",),
        secrets=(("key", b"hush\0\n"),),
    )
    ended, lines = await run(runtime, task)
    assert ended == Exit(0)
    assert {"A=b c", "HOSTNAME=box", "box", "10.0.0.5\tbox", "hush\0"} <= set(lines)
    assert {"nameserver 127.0.0.11", "search example.com", "options ndots:0"} <= set(lines)
    assert lines[-2:] == [".", ".."], "the runtime's directory is hidden"
    own = tmp_path / "tasks" / task.task_id
    kept = b"".join(path.read_bytes() for path in own.iterdir() if path.is_file())
    assert b"hush" in kept, "the task printed it"
    assert not any(path.name == "key" for path in own.rglob("*"))
    assert own.parent.stat().st_mode & 0o777 == 0o700


async def test_a_task_is_in_the_network_it_is_given(
    runtime: ProcessRuntime, namespace: Path
) -> None:
    text = "ls /sys/class/net; ip link set lo up"
    ended, lines = await run(runtime, script(text), namespace)
    assert lines[0] == "lo"
    assert "Operation not permitted" in lines[-1]
    assert ended.code != 0


async def test_a_start_that_fails_leaves_nothing(tmp_path: Path, runtime: ProcessRuntime) -> None:
    task = script("true")
    await runtime.prepare(task)
    with pytest.raises(RuntimeFailure, match="no such file"):
        await runtime.start(task, tmp_path / "nowhere")
    with pytest.raises(RuntimeFailure, match="was not started"):
        await runtime.wait(task.task_id)
    assert await runtime.start(task, None) > 0


async def test_names_are_resolved_in_the_sandbox(runtime: ProcessRuntime, namespace: Path) -> None:
    network = Network(
        "n",
        "net",
        4097,
        IPv4Network("10.0.0.0/24"),
        IPv4Address("10.0.0.1"),
        names=(Name("web", (IPv4Address("10.0.0.2"),)),),
    )
    sandbox = Sandbox("box", (Interface("n", IPv4Address("10.0.0.3"), ""),))
    run_in_namespace(namespace, lambda: subprocess.run(UP, check=True))
    server = DnsServer(open_resolver, (), Random(1))
    await server.apply(NodePlan(networks=(network,), sandboxes=(sandbox,)), lambda _: namespace)
    _, lines = await run(runtime, script("getent hosts web nope"), namespace)
    ended, _ = await run(runtime, execution(sys.executable, "-c", BE_A_NAME_SERVER), namespace)
    await server.close()
    assert [line.split() for line in lines] == [["10.0.0.2", "web"]]
    assert ended == Exit(0), "port 53 is the tasks' own"


async def test_an_image_is_the_whole_world_of_a_task(runtime: ProcessRuntime, image: Path) -> None:
    text = "ls /; cat /etc/hostname /etc/resolv.conf; echo mine > /file; ls /dev; id -u"
    task = replace(execution("sh", "-c", text, image=str(image)), hostname="box")
    ended, lines = await run(runtime, task)
    assert ended == Exit(0)
    assert {"box", "nameserver 127.0.0.11", "urandom", "0"} <= set(lines)
    assert "work" not in lines
    assert not (image / "file").exists(), "a task's changes are its own"
    again = execution("ls", "/file", image=str(image))
    assert (await run(runtime, again))[0].code != 0


async def test_an_image_must_have_the_command(runtime: ProcessRuntime, image: Path) -> None:
    with pytest.raises(RuntimeFailure, match="executable file not found"):
        await runtime.prepare(execution("python3", image=str(image)))


async def test_other_users(runtime: ProcessRuntime) -> None:
    if not has_other_users():
        with pytest.raises(RuntimeFailure, match="cannot run as user 1234"):
            await run(runtime, replace(script("true"), user="1234"))
        return
    task = replace(script("id -u; id -g; echo $HOME; cat /etc/shadow"), user="nobody")
    _, lines = await run(runtime, task)
    assert lines[:2] == ["65534", "65534"]
    assert "Permission denied" in lines[-1]


async def test_running_out_of_memory_is_told(runtime: ProcessRuntime) -> None:
    if not Cgroups.detect().version:
        pytest.skip("no writable cgroups")
    text = "head -c 200000000 /dev/zero | tail > /dev/null; exit 9"
    task = replace(script(text), memory_bytes_max=30_000_000, nano_cpus_max=1_000_000_000)
    ended, _ = await run(runtime, task)
    assert ended.message.partition(":")[0] == "out of memory"
    assert ended.code in {9, 128 + signal.SIGKILL}  # the kernel may kill the shell as well


async def test_thirty_tasks_start_together(runtime: ProcessRuntime) -> None:
    tasks = [execution("sleep", "1000") for _ in range(30)]
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for task in tasks:
            await runtime.prepare(task)
            group.create_task(runtime.start(task, None))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(runtime.stop(task.task_id, signal="SIGTERM", grace_s=5))
    assert {(await runtime.wait(task.task_id)).code for task in tasks} == {143}


def test_a_start_that_was_given_up_does_not_happen_later(tmp_path: Path) -> None:
    launch = Launch(directory=str(tmp_path), arguments=("touch", str(tmp_path / "ran")))
    ours, theirs = socket.socketpair()
    ours.sendall(encode(launch))
    ours.shutdown(socket.SHUT_WR)  # all that can be seen of a daemon that hung up
    program = (
        "import socket; from cluster.runtime.zygote import serve; serve(socket.socket(fileno=0))"
    )
    control, zygotes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with zygotes:
        zygote = subprocess.Popen([sys.executable, "-c", program], stdin=zygotes.fileno(), cwd=ROOT)
    with control, theirs:
        socket.send_fds(control, [b"x"], [theirs.fileno()])
    with ours:
        ours.settimeout(10)
        assert ours.recv(100) == b""  # nobody holds the other end any more
    assert zygote.wait(10) == 0
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True, slots=True)
class _SlowCgroups(Cgroups):
    """A kernel that does nothing about control groups before it may."""

    may: threading.Event = field(default_factory=threading.Event)

    def create(self, name: str, *, memory_bytes_max: int, nano_cpus_max: int) -> Sequence[Path]:
        assert self.may.wait(10), "the daemon waits for the kernel"
        limits = {"memory_bytes_max": memory_bytes_max, "nano_cpus_max": nano_cpus_max}
        return Cgroups.create(self, name, **limits)

    def remove(self, name: str) -> None:
        assert self.may.wait(10), "the daemon waits for the kernel"
        Cgroups.remove(self, name)


async def test_a_slow_kernel_does_not_stop_the_daemon(tmp_path: Path) -> None:
    cgroups = _SlowCgroups(0)
    runtime = ProcessRuntime(tmp_path / "tasks", cgroups=cgroups)
    task = execution("true")
    await runtime.prepare(task)
    for step in (runtime.start(task, None), runtime.remove(task.task_id)):
        cgroups.may.clear()
        asyncio.get_running_loop().call_soon(cgroups.may.set)
        await step
    await runtime.close()
