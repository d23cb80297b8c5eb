"""Task groups that treat cancellation as Python 3.13 does, on older versions too.

A group whose child fails cancels its own task to wake it. Before Python 3.13 it does not always
take that back (see "Task Groups" in the documentation of asyncio, "Changed in version 3.13"). The
task then looks as if somebody else had cancelled it, and up to Python 3.11.2 a time-out that passes
in it later, ours or a library's, is no TimeoutError but the task's end, without a word. And if
somebody else does cancel the task while its group fails, that is forgotten over the failure.
"""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType
from typing import Self

_IS_NEEDED = sys.version_info < (3, 13)


class TaskGroup(asyncio.TaskGroup):
    """asyncio's, for tasks that go on when their group has failed."""

    async def __aenter__(self) -> Self:
        """See `asyncio.TaskGroup`."""
        self._task = _current_task()
        self._cancelling = self._task.cancelling()
        await super().__aenter__()
        return self

    async def __aexit__(
        self,
        et: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """See `asyncio.TaskGroup`."""
        was_taken_back = self._has_cancelled()
        try:
            await super().__aexit__(et, exc, tb)
        except BaseExceptionGroup:
            if _IS_NEEDED:
                if self._has_cancelled() and not was_taken_back:
                    self._task.uncancel()
                if self._task.cancelling() > self._cancelling:
                    # Somebody else wants it to end: let it hear that where it waits next.
                    self._task.uncancel()
                    self._task.cancel()
            raise

    def _has_cancelled(self) -> bool:
        """Tell whether this group has cancelled its task; asyncio keeps that to itself."""
        return bool(vars(self)["_parent_cancel_requested"])


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a task group needs a task")
    return task
