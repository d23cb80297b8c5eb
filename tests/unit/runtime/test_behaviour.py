"""What every runtime does: the same tests against memory and processes."""

from __future__ import annotations

import asyncio
import itertools
import signal

import pytest

from cluster.model.logs import LogStream
from cluster.runtime.base import Execution, Exit, LogLine, Runtime, RuntimeFailure

_numbers = itertools.count(1)
FOREVER = ("sleep", "1000")
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; sleep 1000")


def execution(*command: str, image: str = "host", stop_signal: str = "SIGTERM") -> Execution:
    number = next(_numbers)
    return Execution(
        f"task{number:08}", f"web.{number}", image, tuple(command), stop_signal=stop_signal
    )


async def started(runtime: Runtime, *command: str) -> str:
    task = execution(*command)
    await runtime.prepare(task)
    assert await runtime.start(task, None) >= 0
    return task.task_id


async def output(
    runtime: Runtime, task_id: str, *, tail: int | None = None, since_ns: int = 0
) -> list[LogLine]:
    lines = runtime.logs(task_id, follow=False, tail=tail, since_ns=since_ns)
    return [line async for line in lines]


async def test_a_task_ends_with_its_exit_code(runtime: Runtime) -> None:
    assert await runtime.wait(await started(runtime, "true")) == Exit(0)
    assert await runtime.wait(await started(runtime, "sh", "-c", "exit 3")) == Exit(3)


async def test_unknown_image_and_command_are_refused_before_the_start(runtime: Runtime) -> None:
    with pytest.raises(RuntimeFailure, match="No such image: nginx"):
        await runtime.prepare(execution("true", image="nginx"))
    with pytest.raises(RuntimeFailure, match=r'"nope": executable file not found in \$PATH'):
        await runtime.prepare(execution("nope"))
    with pytest.raises(RuntimeFailure, match="Invalid signal: SIGNOPE"):
        await runtime.prepare(execution("true", stop_signal="SIGNOPE"))
    assert list(await runtime.adopt()) == []


async def test_what_was_never_prepared_or_started(runtime: Runtime) -> None:
    task = execution("true")
    with pytest.raises(RuntimeFailure, match="was not prepared"):
        await runtime.start(task, None)
    await runtime.prepare(task)
    with pytest.raises(RuntimeFailure, match="was not started"):
        await runtime.wait(task.task_id)
    await runtime.stop(task.task_id, signal="SIGTERM", grace_s=1)
    assert await output(runtime, task.task_id) == []
    await runtime.remove(task.task_id)
    await runtime.remove(task.task_id)


async def test_stop_ends_a_task_that_handles_no_signal(runtime: Runtime) -> None:
    task_id = await started(runtime, *FOREVER)
    await runtime.stop(task_id, signal="SIGTERM", grace_s=30)
    assert await runtime.wait(task_id) == Exit(128 + signal.SIGTERM)
    await runtime.stop(task_id, signal="SIGTERM", grace_s=30)


async def test_stop_kills_after_the_grace_period(runtime: Runtime) -> None:
    task_id = await started(runtime, *STUBBORN)
    async for _ in runtime.logs(task_id, follow=True, tail=None, since_ns=0):
        break  # the signal is ignored from here on
    await runtime.stop(task_id, signal="TERM", grace_s=0.05)
    assert await runtime.wait(task_id) == Exit(128 + signal.SIGKILL)


async def test_stop_with_sigkill_does_not_wait(runtime: Runtime) -> None:
    task_id = await started(runtime, *STUBBORN)
    async with asyncio.timeout(10):
        await runtime.stop(task_id, signal="9", grace_s=30)
    assert await runtime.wait(task_id) == Exit(128 + signal.SIGKILL)


async def test_stop_refuses_an_unknown_signal(runtime: Runtime) -> None:
    task_id = await started(runtime, *FOREVER)
    with pytest.raises(RuntimeFailure, match="Invalid signal"):
        await runtime.stop(task_id, signal="SIGNOPE", grace_s=0)
    await runtime.remove(task_id)


async def test_prepare_and_start_again_change_nothing(runtime: Runtime) -> None:
    task = execution(*FOREVER)
    await runtime.prepare(task)
    pid = await runtime.start(task, None)
    await runtime.prepare(task)
    assert await runtime.start(task, None) == pid > 0
    await runtime.stop(task.task_id, signal="SIGTERM", grace_s=30)
    assert await runtime.start(task, None) == 0
    assert await runtime.wait(task.task_id) == Exit(128 + signal.SIGTERM)


async def test_several_may_wait(runtime: Runtime) -> None:
    task_id = await started(runtime, "sh", "-c", "sleep 0.01; exit 4")
    assert await asyncio.gather(*(runtime.wait(task_id) for _ in range(3))) == [Exit(4)] * 3


async def test_logs_keep_streams_order_and_times(runtime: Runtime) -> None:
    task_id = await started(runtime, "sh", "-c", "echo one; sleep 0.02; echo two >&2; echo three")
    await runtime.wait(task_id)
    lines = await output(runtime, task_id)
    assert {(line.stream, line.data) for line in lines} == {
        (LogStream.STDOUT, b"one\n"),
        (LogStream.STDERR, b"two\n"),
        (LogStream.STDOUT, b"three\n"),
    }
    assert lines[0].data == b"one\n"
    assert [line.written_at_ns for line in lines] == sorted(line.written_at_ns for line in lines)
    assert await output(runtime, task_id, tail=2) == lines[1:]
    assert await output(runtime, task_id, tail=0) == []
    assert await output(runtime, task_id, since_ns=lines[1].written_at_ns) == lines[1:]


async def test_following_logs_ends_with_the_task(runtime: Runtime) -> None:
    task_id = await started(runtime, "sh", "-c", "echo one; sleep 0.05; echo two; echo three")
    lines = runtime.logs(task_id, follow=True, tail=None, since_ns=0)
    assert [line.data async for line in lines] == [b"one\n", b"two\n", b"three\n"]


async def test_adopt_lists_tasks_until_they_are_removed(runtime: Runtime) -> None:
    running = await started(runtime, *FOREVER)
    ended = await started(runtime, "true")
    await runtime.wait(ended)
    assert sorted(await runtime.adopt()) == sorted([running, ended])
    await runtime.remove(running)
    await runtime.remove(ended)
    assert list(await runtime.adopt()) == []
