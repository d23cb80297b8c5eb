"""How little memory a daemon needs: settings of the C library's allocator, and what start-up left.

`before_imports` is to be called before anything heavy is imported, `after_start` when the daemon
begins to serve, and `settle` once its node has found its place. Nothing here changes what the
daemon does.

Source: mallopt(3), malloc_trim(3), madvise(2), proc(5); asyncio.sslproto for its buffers.
"""

from __future__ import annotations

import asyncio.sslproto
import ctypes
import gc
import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_M_ARENA_MAX = -8
"""malloc.h."""
_MADV_DONTNEED = 4
"""mman.h."""
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r-.p) \S+ \S+ ([1-9]\d*) ", re.ASCII)
"""Head of a mapping that is read from a file and cannot be written to (proc(5), smaps)."""
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks for them (SSL_CTX_set_default_verify_paths(3))."""
_YOUNG_OBJECTS_MAX = 10_000
"""Containers made and not freed before cycles among them are looked for; CPython's 700 are all
reached by one batch of commits. Of garbage in cycles it lets about 1 MB lie."""
_YOUNG_COLLECTIONS = 20
"""Collections of one generation to one of the next older."""
_TLS_BUFFER_BYTES = 32 * 1024
"""What a TLS connection receives into: two records of the largest size (RFC 8446, 5.1). asyncio
takes 256 KiB, all of it resident, and an idle manager has ten connections."""


def before_imports() -> None:
    """Keep one heap for all threads, and small buffers for all TLS connections.

    Until `after_start`, cycles are not looked for: what imports make stays, and going through it
    again and again takes a seventh of the time that a daemon needs to start.
    """
    gc.disable()
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
    """Give back what start-up has left behind; what it has made is never garbage.

    What comes later rarely is: cycles are looked for less often than CPython does by itself, which
    takes a tenth of a busy manager's time.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_YOUNG_OBJECTS_MAX, _YOUNG_COLLECTIONS, _YOUNG_COLLECTIONS)
    ctypes.CDLL(None).malloc_trim(0)


def settle() -> None:
    """Give back what start-up and joining needed and idling does not.

    That is free heap, and the pages of programs and libraries: they are read from their files again
    when they are used. Most of a daemon's were used once, by an import. They are shared between all
    daemons of a machine, so this makes a process look as small as it is and frees little beside.
    """
    libc = ctypes.CDLL(None)
    gc.collect()
    libc.malloc_trim(0)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with suppress(OSError):
        for start, end in unwritten_mappings(Path("/proc/self/smaps").read_text()):
            libc.madvise(start, end - start, _MADV_DONTNEED)


def unwritten_mappings(smaps: str) -> list[tuple[int, int]]:
    """Return (start, end) of the mappings that hold nothing but what their file holds (pure).

    What a loader has relocated before it took the right to write away counts as anonymous: it would
    be lost.
    """
    found: list[tuple[int, int]] = []
    head: re.Match[str] | None = None
    for line in smaps.splitlines():
        if line[0] in "0123456789abcdef":
            head = _MAPPING.match(line)
        elif head is not None and line.startswith("Anonymous:") and line.split()[1] == "0":
            found.append((int(head[1], 16), int(head[2], 16)))
    return found
