"""What tasks write, and which part of it somebody wants to read (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LogStream(StrEnum):
    """Where a line was written."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Which part of a task's output is wanted."""

    follow: bool = False
    tail: int | None = None
    """Only the last so many lines of each task; None: all."""
    since_ns: int = 0
    """Unix time, nanoseconds."""
    stdout: bool = True
    stderr: bool = True

    def has(self, stream: LogStream) -> bool:
        """Return whether lines of `stream` are wanted."""
        return self.stdout if stream is LogStream.STDOUT else self.stderr
