"""What the HTTP servers may log of requests that are none: a line, not a traceback.

aiohttp logs every malformed request as an exception of its own. Who it came from and what was wrong
with it is all that helps; anything else that it logs is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import logging

from aiohttp.http_exceptions import HttpProcessingError

_REASON_CHARS_MAX = 100
"""Of the first line; aiohttp quotes what the stranger has sent below it."""


class _MalformedRequests(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
            reason = error.message.partition("\n")[0][:_REASON_CHARS_MAX]
            record.msg = f"malformed request refused: reason={reason!r}".replace("%", "%%")
            record.args = ()
            record.exc_info = None
        return True


def shorten() -> None:
    """Let the servers of this process log so from now on."""
    logging.getLogger("aiohttp.server").addFilter(_MalformedRequests())
