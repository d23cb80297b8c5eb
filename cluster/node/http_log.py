"""What the HTTP servers may log of what their callers do: a line, not a traceback.

aiohttp logs every malformed request, and every answer whose caller has hung up meanwhile, as an
exception of its own. What was wrong is all that helps; anything else that it logs is a bug of ours
and keeps its traceback.
"""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

_REASON_CHARS_MAX = 100
"""Of the first line; aiohttp quotes what the stranger has sent below it."""


class _CallersFaults(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            _make_line(record, "malformed request refused", error.message)
        elif isinstance(error, ConnectionResetError):
            _make_line(record, "a caller did not wait for its answer", str(error))
        return True


def _make_line(record: logging.LogRecord, what: str, why: str) -> None:
    record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    reason = why.partition("\n")[0][:_REASON_CHARS_MAX]
    record.msg = f"{what}: reason={reason!r}".replace("%", "%%")
    record.args = ()
    record.exc_info = None


def shorten() -> None:
    """Let the servers of this process log so from now on."""
    logging.getLogger("aiohttp.server").addFilter(_CallersFaults())
