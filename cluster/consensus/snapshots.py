"""Snapshots: what replaced the front of the log, on disk and on its way to a follower.

A snapshot is one file, `snapshot-<index>`, written beside the old one, synced and renamed; older
ones are deleted after that. Encoding and writing happen in a job that the caller runs off the loop.
The *image* of a snapshot is what is sent: SHA-256, then compressed content. On disk the image is
sealed with this manager's own key, so the receiver seals it again.

Invariants:
    the current snapshot never gets older: a local one that finishes after a newer one was
    installed is thrown away;
    nothing is installed that does not match its digest.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import msgspec

from cluster.consensus.errors import StorageFailure
from cluster.consensus.files import Directory
from cluster.consensus.headers import HEADER_BYTES, FileKind, encode_header, read_header
from cluster.consensus.members import Entry, Member
from cluster.consensus.messages import SnapshotChunk
from cluster.consensus.seal import FileSeal, fresh_salt

IMAGE_BYTES_MAX = 256 * 1024 * 1024
"""Largest snapshot that is accepted from a leader."""
CONTENT_BYTES_MAX = 1024 * 1024 * 1024
"""Largest content that an image may unpack to."""

_PREFIX = "snapshot-"
_NEW_SUFFIX = ".new"
_PURPOSE = b"snapshot"
_DIGEST_BYTES = hashlib.sha256().digest_size


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """Everything up to and including the entry `last`."""

    last: Entry
    previous: Entry
    """The entry before `last`: PySyncObj's log always begins with it."""
    members: tuple[Member, ...]
    """As of `last`, not the latest."""
    state: bytes

    @property
    def index(self) -> int:
        """Index of the last entry it stands for."""
        return self.last[1]


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A snapshot that is on disk, without its state."""

    index: int
    term: int
    image: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode_image(snapshot: Snapshot) -> bytes:
    """Return the image of a snapshot."""
    content = zlib.compress(_encode(snapshot), level=1)
    return hashlib.sha256(content).digest() + content


def decode_image_untrusted(image: bytes) -> Snapshot | None:
    """Return the snapshot of an image, or None if it is damaged."""
    content = image[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != image[:_DIGEST_BYTES]:
        return None
    unpacker = zlib.decompressobj()
    try:
        packed = unpacker.decompress(content, CONTENT_BYTES_MAX)
        return _decoder.decode(packed) if unpacker.eof else None
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        return None


class SnapshotStore:
    """The snapshots of one manager: at most one on disk, at most one arriving."""

    def __init__(self, directory: Directory, *, data_key: bytes, chunk_bytes: int) -> None:
        """Open the newest snapshot in `directory`.

        Raises:
            StorageFailure: it is damaged, or the key is not its key.
        """
        self._directory = directory
        self._data_key = data_key
        self._chunk_bytes = chunk_bytes
        self._sending: dict[str, tuple[StoredSnapshot, int]] = {}
        self._arriving: tuple[SnapshotChunk, list[bytes]] | None = None
        self.current: StoredSnapshot | None = None
        self.opened: Snapshot | None = None
        """What was found on opening, with its state."""
        for name in directory.names():
            if name.startswith(_PREFIX) and name.endswith(_NEW_SUFFIX):
                directory.remove(name)
        newest = newest_index(directory)
        if newest > 0:
            self._open(_name(newest))
            self._remove_others(_name(newest))

    def write(self, snapshot: Snapshot) -> StoredSnapshot:
        """Write a snapshot under a temporary name; may run in a thread. `publish` comes next."""
        return self._write_image(snapshot, encode_image(snapshot))

    def publish(self, stored: StoredSnapshot) -> bool:
        """Make what `write` returned current; return False if something newer is."""
        name = _name(stored.index)
        if self.current is not None and self.current.index >= stored.index:
            self._directory.remove(name + _NEW_SUFFIX)
            return False
        self._directory.replace(name + _NEW_SUFFIX, name)
        self.current = stored
        self._remove_others(name)
        return True

    def receive_untrusted(self, chunk: SnapshotChunk) -> Snapshot | None:
        """Take a chunk; return the snapshot, by then current, when this one completes it.

        A chunk that does not continue the last one, or a snapshot that does not check, is dropped
        with all that came before: the leader will find the log too short and start again.
        """
        if chunk.total > IMAGE_BYTES_MAX:
            self._arriving = None
            return None
        if chunk.offset == 0:
            self._arriving = (chunk, [])
        if self._arriving is None:
            return None
        first, pieces = self._arriving
        if not _continues(first, sum(map(len, pieces)), chunk):
            self._arriving = None
            return None
        pieces.append(chunk.data)
        if chunk.offset + len(chunk.data) < chunk.total:
            return None
        self._arriving = None
        image = b"".join(pieces)
        snapshot = decode_image_untrusted(image)
        if snapshot is None or (snapshot.index, snapshot.last[2]) != (first.index, first.last_term):
            return None
        self.publish(self._write_image(snapshot, image))
        return snapshot

    def next_chunk(self, node_id: str, *, term: int) -> SnapshotChunk | None:
        """Return the next piece of the snapshot for a follower, or None if there is no snapshot.

        After the last piece it would start again.
        """
        stored, offset = self._sending.get(node_id, (self.current, 0))
        if stored is None:
            return None
        data = stored.image[offset : offset + self._chunk_bytes]
        end = offset + len(data)
        if end < len(stored.image):
            self._sending[node_id] = (stored, end)
        else:
            self._sending.pop(node_id, None)
        return SnapshotChunk(term, stored.index, stored.term, offset, len(stored.image), data)

    def restart_sending(self, node_id: str) -> None:
        """Begin again with the next piece for this follower: it may not have got the last ones."""
        self._sending.pop(node_id, None)

    def _write_image(self, snapshot: Snapshot, image: bytes) -> StoredSnapshot:
        salt = fresh_salt()
        seal = FileSeal(self._data_key, salt=salt, purpose=_PURPOSE)
        file = self._directory.create(_name(snapshot.index) + _NEW_SUFFIX)
        try:
            file.append(encode_header(FileKind.SNAPSHOT, salt) + seal.seal(0, image))
            file.sync()
        finally:
            file.close()
        return StoredSnapshot(snapshot.index, snapshot.last[2], image)

    def _open(self, name: str) -> None:
        data = self._directory.read(name)
        salt = read_header(FileKind.SNAPSHOT, name, data)
        seal = FileSeal(self._data_key, salt=salt, purpose=_PURPOSE)
        image = seal.open(0, data[HEADER_BYTES:])
        snapshot = decode_image_untrusted(image)
        if snapshot is None or _name(snapshot.index) != name:
            raise StorageFailure(
                f"{name} is damaged: refusing to start; remove this manager and let it join again"
            )
        self.opened = snapshot
        self.current = StoredSnapshot(snapshot.index, snapshot.last[2], image)

    def _remove_others(self, name: str) -> None:
        for other in self._directory.names():
            if other.startswith(_PREFIX) and other != name and not other.endswith(_NEW_SUFFIX):
                self._directory.remove(other)


def newest_index(directory: Directory) -> int:
    """Return the index of the newest snapshot in `directory`, by its name; 0 if there is none."""
    names = (name.removeprefix(_PREFIX) for name in directory.names() if name.startswith(_PREFIX))
    return max((int(index) for index in names if index.isdigit()), default=0)


def remove_all(directory: Directory) -> None:
    """Delete every snapshot."""
    for name in directory.names():
        if name.startswith(_PREFIX):
            directory.remove(name)


def _name(index: int) -> str:
    return f"{_PREFIX}{index:020d}"


def _continues(first: SnapshotChunk, received_bytes: int, chunk: SnapshotChunk) -> bool:
    """Tell whether `chunk` is the next one of the snapshot that `first` began."""
    return (chunk.index, chunk.last_term, chunk.total, chunk.offset) == (
        first.index,
        first.last_term,
        first.total,
        received_bytes,
    )
