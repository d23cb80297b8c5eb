"""How little memory a daemon needs: settings of the C library's allocator, and what start-up left.

`before_imports` is to be called before anything heavy is imported, `after_start` once the daemon
serves. Nothing here changes what the daemon does.

Source: mallopt(3), malloc_trim(3); asyncio.sslproto for the size of its buffers.
"""

from __future__ import annotations

import asyncio.sslproto
import ctypes
import gc
import os
from collections.abc import Generator
from contextlib import contextmanager

_M_ARENA_MAX = -8
"""malloc.h."""
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks for them (SSL_CTX_set_default_verify_paths(3))."""
_TLS_BUFFER_BYTES = 32 * 1024
"""What a TLS connection receives into: two records of the largest size (RFC 8446, 5.1). asyncio
takes 256 KiB, all of it resident, and an idle manager has ten connections."""


def before_imports() -> None:
    """Keep one heap for all threads, and small buffers for all TLS connections."""
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES


@contextmanager
def without_public_authorities() -> Generator[None]:
    """Hide the machine's list of certificate authorities while modules are imported.

    aiohttp reads it when it is imported (2 MB, and 0.15 s on a slow machine), for requests to
    public servers. A daemon makes none: it trusts its cluster's authority only.
    """
    kept = {name: os.environ.get(name) for name in _AUTHORITIES}
    os.environ.update(dict.fromkeys(_AUTHORITIES, os.devnull))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def after_start() -> None:
    """Give back what start-up has left behind; what it has made is never garbage."""
    gc.collect()
    gc.freeze()
    ctypes.CDLL(None).malloc_trim(0)
