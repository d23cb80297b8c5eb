"""Running nftables commands: in this process through libnftables, else with the `nft` command.

Everything is one transaction in the network namespace of the calling thread. The library is
several times faster than the command (no fork, no dynamic linking) and its calls release the
interpreter lock.

Source: libnftables(3).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from typing import Protocol

_LIBRARY = "libnftables.so.1"
_COMMAND_TIMEOUT_S = 30.0
_MESSAGE_LENGTH_MAX = 500


class NftError(Exception):
    """Commands were refused; none of them took effect."""


class Nft(Protocol):
    """Runs nftables commands in the calling thread's network namespace."""

    def run(self, commands: str, *, is_check: bool = False) -> None:
        """Apply the commands in one transaction; is_check: only see whether they would pass.

        Raises:
            NftError: they were refused.
        """
        ...


class LibraryNft:
    """nftables through libnftables."""

    def __init__(self) -> None:
        """Load the library.

        Raises:
            OSError: it is not there.
        """
        library = ctypes.CDLL(_LIBRARY)
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_free.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_output.argtypes = [ctypes.c_void_p]
        library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.argtypes = [ctypes.c_void_p]
        library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        library.nft_ctx_set_dry_run.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        self._library = library

    def run(self, commands: str, *, is_check: bool = False) -> None:
        """See `Nft.run`."""
        library = self._library
        # The context's socket belongs to the namespace it was made in, so it isn't kept.
        context = library.nft_ctx_new(0)
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_set_dry_run(context, is_check)
            if library.nft_run_cmd_from_buffer(context, commands.encode()) != 0:
                error: bytes = library.nft_ctx_get_error_buffer(context) or b""
                raise NftError(_shortened(error.decode(errors="replace")))
        finally:
            library.nft_ctx_free(context)


class CommandNft:
    """nftables through the `nft` command, for machines without the library."""

    def run(self, commands: str, *, is_check: bool = False) -> None:
        """See `Nft.run`."""
        arguments = ["nft", *(["-c"] if is_check else []), "-f", "-"]
        try:
            finished = subprocess.run(
                arguments,
                input=commands,
                text=True,
                capture_output=True,
                timeout=_COMMAND_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NftError(f"nft: {error}") from error
        if finished.returncode != 0:
            raise NftError(_shortened(finished.stderr))


def release_memory() -> None:
    """Give back what large transactions allocated: their threads' arenas keep it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc only
        trim(0)


def find_nft() -> Nft | None:
    """Return a way to run nftables commands, or None when the machine has none."""
    try:
        return LibraryNft()
    except OSError:
        return CommandNft() if shutil.which("nft") else None


def _shortened(message: str) -> str:
    return " ".join(message.split())[:_MESSAGE_LENGTH_MAX]
