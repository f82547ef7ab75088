"""The local store: verified in, verified out, pins that last, a cache that does not grow."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from raftd.blobs.disk import EVICTION_GRACE_MS, DiskBlobs
from raftd.blobs.ref import FRAME_BYTES, BadDigest, BlobCorrupt, ContentMismatch, ref_of
from raftd.blobs.transfer import Upload, sync_fd
from raftd.errors import BlobNotFound, InvalidArguments, PayloadTooLarge, StorageError

BIG = os.urandom(2 * FRAME_BYTES + 100)


class Clock:
    """Milliseconds that a test moves."""

    def __init__(self) -> None:
        self.now_ms = 10**9

    def __call__(self) -> int:
        return self.now_ms


def store(path: Path, **options: Any) -> DiskBlobs:
    return DiskBlobs(path / "blobs", **options)


def files(path: Path) -> set[str]:
    return {str(file.relative_to(path / "blobs")) for file in (path / "blobs").rglob("*") if file.is_file()}


@pytest.mark.parametrize("data", [b"", b"x", BIG[:FRAME_BYTES], BIG])
def test_what_is_put_is_read_also_after_a_restart(tmp_path: Path, data: bytes) -> None:
    ref = store(tmp_path).put(data)
    assert ref == ref_of(data)
    again = store(tmp_path)
    assert b"".join(again.read(ref.digest)) == data
    assert again.path(ref.digest).read_bytes() == data
    stat = again.stat(ref.digest)
    assert stat is not None
    assert (stat.ref, stat.pinned) == (ref, True)
    assert again.list() == [stat]


def test_a_blob_that_is_not_here_is_not_found(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    digest = ref_of(b"never").digest
    assert blobs.stat(digest) is None
    assert not blobs.delete(digest)
    for look in (blobs.path, blobs.pin, blobs.unpin, lambda one: list(blobs.read(one))):
        with pytest.raises(BlobNotFound):
            look(digest)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64])
def test_a_bad_digest_never_becomes_a_path(tmp_path: Path, digest: str) -> None:
    blobs = store(tmp_path)
    for look in (blobs.path, blobs.stat, blobs.delete, blobs.pin, lambda one: blobs.begin(digest=one)):
        with pytest.raises(BadDigest):
            look(digest)


def test_other_bytes_than_announced_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = ref_of(b"right")
    for digest, size_bytes, data in (
        (ref.digest, 5, b"wrong"),
        (ref.digest, 6, b"right"),
        (ref.digest, 4, b"right"),
        (None, 9, b"right"),
    ):
        upload = blobs.begin(digest=digest, size_bytes=size_bytes)
        with pytest.raises(ContentMismatch):
            _finish(upload, data)
        upload.abort()
    assert files(tmp_path) == set()
    assert blobs.list() == []


def _finish(upload: Upload, data: bytes) -> None:
    upload.write(data)
    upload.commit(pinned=True)


def test_a_blob_over_the_limit_is_refused_before_and_while_it_comes(tmp_path: Path) -> None:
    blobs = store(tmp_path, max_blob_bytes=10)
    with pytest.raises(PayloadTooLarge):
        blobs.begin(size_bytes=11)
    with pytest.raises(InvalidArguments):
        blobs.begin(size_bytes=-1)
    upload = blobs.begin()
    upload.write(b"12345678")
    with pytest.raises(PayloadTooLarge):
        upload.write(b"90123")
    upload.abort()
    assert files(tmp_path) == set()


def test_what_a_crash_leaves_half_way_is_cleaned_up(tmp_path: Path) -> None:
    upload = store(tmp_path).begin()
    upload.write(b"half")
    assert files(tmp_path) == {"temp/1"}
    blobs = store(tmp_path)
    assert files(tmp_path) == set()
    assert blobs.list() == []
    upload.abort()


def test_a_damaged_copy_is_set_aside_and_missing_and_never_served(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(BIG)
    path = blobs.path(ref.digest)
    for position in (0, FRAME_BYTES, len(BIG) - 1):
        damaged = bytearray(BIG)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        frames = blobs.read(ref.digest)
        with pytest.raises(BlobCorrupt):
            next(frames)
        assert blobs.stat(ref.digest) is None
        assert files(tmp_path) == {f"quarantine/{ref.digest}"}
        blobs.put(BIG)
    assert blobs.quarantined_count == 3
    path.write_bytes(BIG[:-1])
    for look in (blobs.path, blobs.path):
        with pytest.raises(BlobNotFound):
            look(ref.digest)


def test_damage_that_comes_while_a_blob_is_read_withholds_its_end(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(BIG)
    download = blobs.open(ref.digest)
    assert download.read() == BIG[:FRAME_BYTES]
    with open(blobs.path(ref.digest), "r+b") as file:
        file.seek(len(BIG) - 1)
        file.write(bytes([BIG[-1] ^ 1]))
    assert len(download.read()) == FRAME_BYTES
    with pytest.raises(BlobCorrupt):
        download.read()
    download.close()
    assert blobs.stat(ref.digest) is None


def test_a_file_that_vanished_is_missing(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(b"data")
    blobs.path(ref.digest).unlink()
    with pytest.raises(BlobNotFound):
        blobs.path(ref.digest)
    assert blobs.stat(ref.digest) is None


def test_putting_again_heals_a_damaged_copy(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(b"data")
    blobs.path(ref.digest).write_bytes(b"rot!")
    blobs.put(b"data", pinned=False)
    assert b"".join(blobs.read(ref.digest)) == b"data"
    stat = blobs.stat(ref.digest)
    assert stat is not None
    assert stat.pinned, "a cached put does not take a pin away"


def test_many_threads_put_the_same_bytes(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    barrier = threading.Barrier(8)
    refs = []

    def put(pinned: bool) -> None:
        barrier.wait()
        refs.append(blobs.put(BIG, pinned=pinned))

    threads = [threading.Thread(target=put, args=(number % 2 == 0,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refs == [ref_of(BIG)] * 8
    assert files(tmp_path) == {f"pinned/{refs[0].digest}"}
    assert b"".join(blobs.read(refs[0].digest)) == BIG


def test_the_cache_evicts_what_was_used_longest_ago_and_never_a_replica(tmp_path: Path) -> None:
    clock = Clock()
    blobs = store(tmp_path, cache_limit_bytes=250, clock_ms=clock)
    pinned = blobs.put(b"p" * 100)
    refs = []
    for letter in (b"a", b"b"):
        refs.append(blobs.put(letter * 100, pinned=False))
        clock.now_ms += EVICTION_GRACE_MS
    blobs.path(refs[0].digest)
    clock.now_ms += EVICTION_GRACE_MS
    refs.append(blobs.put(b"c" * 100, pinned=False))
    assert {stat.ref for stat in blobs.list()} == {pinned, refs[0], refs[2]}
    assert blobs.cached_bytes() == 200


def test_a_copy_that_was_just_given_out_is_spared(tmp_path: Path) -> None:
    clock = Clock()
    blobs = store(tmp_path, cache_limit_bytes=50, clock_ms=clock)
    first = blobs.put(b"a" * 100, pinned=False)
    second = blobs.put(b"b" * 100, pinned=False)
    assert blobs.path(first.digest).exists()
    clock.now_ms += EVICTION_GRACE_MS
    third = blobs.put(b"c" * 100, pinned=False)
    assert [stat.ref for stat in blobs.list()] == [third]
    assert blobs.stat(second.digest) is None


def test_pins_and_the_order_of_use_survive_a_restart(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    refs = [blobs.put(letter * 100, pinned=False) for letter in (b"a", b"b", b"c")]
    pinned = blobs.pin(refs[1].digest)
    for age, ref in enumerate((refs[2], refs[0])):
        os.utime(blobs.path(ref.digest), (1000 + age, 1000 + age))
    again = store(tmp_path, cache_limit_bytes=150)
    assert {(stat.ref, stat.pinned) for stat in again.list()} == {(pinned, True), (refs[0], False)}
    again.unpin(pinned.digest)
    stat = again.stat(pinned.digest)
    assert stat is None or not stat.pinned


def test_a_crash_between_the_two_places_leaves_the_replica(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(b"data")
    cache = tmp_path / "blobs" / "cache" / ref.digest
    cache.write_bytes(b"data")
    again = store(tmp_path)
    stat = again.stat(ref.digest)
    assert stat is not None
    assert stat.pinned
    assert files(tmp_path) == {f"pinned/{ref.digest}"}


def test_removal_is_of_the_bytes(tmp_path: Path) -> None:
    blobs = store(tmp_path)
    ref = blobs.put(b"data")
    with blobs.open(ref.digest) as download:
        assert blobs.delete(ref.digest)
        assert download.read() == b"data", "who reads already goes on"
    assert files(tmp_path) == set()
    assert store(tmp_path).stat(ref.digest) is None


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.EIO, ""), (errno.ENOSPC, "free space on this node's disk")]
)
def test_a_blob_that_could_not_be_synced_is_not_stored(tmp_path: Path, code: int, hint: str) -> None:
    fails = True

    def sync(fd: int) -> None:
        if fails:
            raise OSError(code, os.strerror(code))
        sync_fd(fd)

    blobs = store(tmp_path, sync=sync)
    with pytest.raises(StorageError) as raised:
        blobs.put(b"data")
    assert raised.value.try_ == hint
    assert blobs.list() == []
    assert files(tmp_path) == set()
    fails = False
    blobs.put(b"data")


def test_files_that_are_no_blobs_are_left_alone(tmp_path: Path) -> None:
    store(tmp_path).put(b"data")
    (tmp_path / "blobs" / "pinned" / ".DS_Store").write_bytes(b"x")
    assert len(store(tmp_path).list()) == 1


def test_a_store_on_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"x")
    with pytest.raises(StorageError):
        store(tmp_path)
