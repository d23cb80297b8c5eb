"""A directory in memory that forgets what was not synced, and can break at any operation."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from cluster.consensus.errors import StorageFailure

SECTOR = 512


class PowerCut(BaseException):
    """The machine stopped in the middle of an operation. Nothing may catch this."""


@dataclass(eq=False, slots=True)
class SimFile:
    """A file's content, by what would survive."""

    disk: SimDirectory
    room_bytes: int = 0
    synced: bytes = b""
    written: bytearray = field(default_factory=bytearray)
    room_end: int = 0
    """Up to where zeros follow what was written."""
    synced_room_end: int = 0

    def content(self) -> bytes:
        """Return what can be read."""
        return bytes(self.written.ljust(self.room_end, b"\0"))

    def append(self, data: bytes) -> None:
        """See `files.AppendFile`."""
        end = len(self.written) + len(data)
        if end > self.room_end:
            self.room_end = end + self.room_bytes
        cut = self.disk.step("append")
        if cut is not None:
            # Linux copies page by page, so a write ends between sectors, or with the file.
            kept = end - len(data) + int(len(data) * cut)
            kept -= kept % SECTOR if self.room_bytes else 0
            self.written += data[: max(0, kept - len(self.written))]
            raise PowerCut
        self.written += data

    def sync(self) -> None:
        """See `files.AppendFile`."""
        if self.disk.step("sync") is not None:
            raise PowerCut
        self.synced = bytes(self.written)
        self.synced_room_end = self.room_end

    def close(self) -> None:
        """See `files.AppendFile`."""


class SimDirectory:
    """See `files.Directory`."""

    def __init__(self, rng: Random) -> None:
        self.log: list[str] = []
        """Operations done, in order."""
        self.cut_after: int | None = None
        """How many operations are left before the power is cut."""
        self.cut_after_create: int | None = None
        """The same, counted from when the next file is created: a snapshot, or the log anew."""
        self.fail_after: int | None = None
        """How many operations are left before the disk is full."""
        self._rng = rng
        self._files: dict[str, SimFile] = {}
        self._durable: dict[str, SimFile] = {}

    def step(self, name: str) -> float | None:
        """Count an operation; return how much of it is done if the power is cut in it."""
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                raise StorageFailure("cannot write: no space left on device")
        if name == "create" and self.cut_after_create is not None:
            self.cut_after, self.cut_after_create = self.cut_after_create, None
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                return self._rng.random()
        self.log.append(name)
        return None

    def names(self) -> list[str]:
        """See `files.Directory`."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """See `files.Directory`."""
        return self._files[name].content()

    def create(self, name: str, *, room_bytes: int = 0) -> SimFile:
        """See `files.Directory`."""
        if self.step("create") is not None:
            raise PowerCut
        file = SimFile(self, room_bytes)
        self._files[name] = file
        return file

    def replace(self, old: str, new: str) -> None:
        """See `files.Directory`."""
        done = self.step("replace")
        if done is not None and done < 0.5:
            raise PowerCut
        self._files[new] = self._files.pop(old)
        if done is not None:  # renamed, but the directory was not synced
            raise PowerCut
        self._durable = dict(self._files)

    def remove(self, name: str) -> None:
        """See `files.Directory`."""
        if self.step("remove") is not None:
            raise PowerCut
        self._files.pop(name, None)

    def restart(self, *, power_loss: bool) -> None:
        """Come back after the process ended, or after the whole machine did."""
        self.cut_after = self.cut_after_create = self.fail_after = None
        if not power_loss:
            return
        names = self._files if self._rng.random() < 0.5 else self._durable
        self._files = dict(names)
        for file in self._files.values():
            self._tear(file)
        self._durable = dict(self._files)

    def _tear(self, file: SimFile) -> None:
        """Keep what was synced, and of the rest any sectors up to some length."""
        unsynced = bytes(file.written[len(file.synced) :])
        start = len(file.synced)
        end = start + self._rng.randint(0, len(unsynced))
        if end < len(file.written):
            end -= end % SECTOR if file.room_bytes else 0  # zeros follow: sectors are whole
        content = bytearray(file.synced + unsynced[: max(0, end - start)])
        while start < len(content):
            edge = min(len(content), (start // SECTOR + 1) * SECTOR)
            if self._rng.random() < 0.3:
                content[start:edge] = bytes(edge - start)
            start = edge
        file.written = content
        file.synced = bytes(content)
        file.room_end = file.synced_room_end = max(file.synced_room_end, len(content))
