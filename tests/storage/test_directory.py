"""Data directories: made once, crash-safe, locked, and refused where they are not the ones that were meant."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftd.errors import UnknownFormat, WrongIdentity
from raftd.raft.types import HardState
from raftd.storage.directory import DataDirectory, init_directory
from raftd.storage.errors import (
    AlreadyInitialised,
    DamagedLog,
    DataDirectoryLocked,
    NotInitialised,
    StorageFailed,
)
from raftd.storage.identity import Identity
from raftd.storage.memory import MemoryDirectory
from tests.sim.disk import SimulatedCrash, SimulatedDisk
from tests.storage.logs import (
    CLUSTER,
    FIRST,
    GENESIS,
    GENESIS_CONTENT,
    SEGMENT_BYTES,
    STORE,
    content,
    entry,
)

IDENTITY = Identity(CLUSTER, STORE, "n1")


def init(path: Path | str, fs: SimulatedDisk | None = None, identity: Identity = IDENTITY) -> None:
    init_directory(str(path), identity, FIRST, [GENESIS], fs=fs, segment_bytes=SEGMENT_BYTES)


def open_it(path: Path | str, fs: SimulatedDisk | None = None) -> DataDirectory:
    return DataDirectory.open(str(path), fs=fs, segment_bytes=SEGMENT_BYTES)


def test_a_store_is_made_opened_written_and_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "n1"
    init(path)
    first = DataDirectory.open(str(path), name="n1", cluster_id=CLUSTER, segment_bytes=SEGMENT_BYTES)
    assert (first.identity, first.incarnation) == (IDENTITY, 1)
    assert content(first.recovered) == GENESIS_CONTENT
    for index in range(2, 40):
        first.log.append(HardState(1, 0, index), [entry(index, 1, b"d" * 300)], sync=True)
        first.log.prepare_next()
    assert first.next_incarnation() == 2
    first.log.close()
    first.close()
    second = open_it(path)
    assert second.incarnation == 3
    assert [one.index for one in second.recovered.entries] == list(range(1, 40))
    assert second.recovered.hard_state.commit == 39
    assert second.log.segment_sequence > 3
    second.log.close()
    second.close()


def test_the_files_are_full_of_real_zeros_and_private(tmp_path: Path) -> None:
    init(tmp_path / "n1")
    (segment,) = (tmp_path / "n1" / "log").iterdir()
    stat = segment.stat()
    assert stat.st_size == SEGMENT_BYTES
    assert stat.st_blocks * 512 >= SEGMENT_BYTES, "not a hole"
    assert stat.st_mode & 0o077 == 0


def test_a_second_process_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "n1"
    init(path)
    program = (
        "import sys; from raftd.storage.directory import DataDirectory\n"
        f"d = DataDirectory.open({str(path)!r}, segment_bytes={SEGMENT_BYTES})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(DataDirectoryLocked) as raised:
            open_it(path)
        assert raised.value.pid == holder.pid
        assert str(holder.pid) in raised.value.message
        with pytest.raises(AlreadyInitialised):
            init(path)
    finally:
        holder.kill()
        holder.communicate()
    opened = open_it(path)
    assert opened.incarnation == 2, "the dead holder's start counts, its lock does not"
    opened.log.close()
    opened.close()


def test_the_lock_excludes_the_same_process_too(tmp_path: Path) -> None:
    init(tmp_path / "n1")
    first = open_it(tmp_path / "n1")
    with pytest.raises(DataDirectoryLocked):
        open_it(tmp_path / "n1")
    first.log.close()
    first.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_directory_without_a_store_is_refused(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "n1").mkdir()
    with pytest.raises(NotInitialised) as raised:
        open_it(tmp_path / "n1")
    assert "raftd init" in raised.value.try_


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "thesis.tex").write_text("x")
    with pytest.raises(AlreadyInitialised, match=r"thesis\.tex"):
        init(tmp_path / "n1")
    init(tmp_path / "n2")
    with pytest.raises(AlreadyInitialised, match="node n1, store"):
        init(tmp_path / "n2")
    with pytest.raises(StorageFailed):
        init(tmp_path / "n1" / "thesis.tex")


def test_a_store_whose_identity_file_is_gone_is_neither_opened_nor_made_anew(tmp_path: Path) -> None:
    init(tmp_path / "n1")
    (tmp_path / "n1" / "identity.json").unlink()
    with pytest.raises(NotInitialised, match=r"no identity\.json"):
        open_it(tmp_path / "n1")
    with pytest.raises(AlreadyInitialised):
        init(tmp_path / "n1")


@pytest.mark.parametrize(("name", "cluster_id"), [("n2", None), (None, 0xBAD), ("n2", CLUSTER)])
def test_another_nodes_or_clusters_directory_is_refused(
    tmp_path: Path, name: str | None, cluster_id: int | None
) -> None:
    init(tmp_path / "n1")
    with pytest.raises(WrongIdentity) as raised:
        DataDirectory.open(str(tmp_path / "n1"), name=name, cluster_id=cluster_id)
    assert "n1" in raised.value.message
    open_it(tmp_path / "n1").close()


@pytest.mark.parametrize("file", ["identity.json", "incarnation.json"])
def test_every_flipped_bit_of_the_small_files_is_noticed(file: str) -> None:
    disk = SimulatedDisk()
    init("/n1", disk)
    for bit in range(len(disk.read(f"/n1/{file}")) * 8):
        if disk.read(f"/n1/{file}")[bit // 8] == ord("\n"):
            continue
        disk.flip_bit(f"/n1/{file}", bit)
        disk.kill_process()
        with pytest.raises(DamagedLog, match=file):
            open_it("/n1", disk)
        disk.flip_bit(f"/n1/{file}", bit)


def test_a_missing_counter_and_another_stores_counter_are_damage(tmp_path: Path) -> None:
    init(tmp_path / "n1")
    init(tmp_path / "n2", identity=Identity(CLUSTER, 0x99, "n2"))
    counter = tmp_path / "n1" / "incarnation.json"
    counter.write_bytes((tmp_path / "n2" / "incarnation.json").read_bytes())
    with pytest.raises(DamagedLog, match="not the counter of this store"):
        open_it(tmp_path / "n1")
    counter.unlink()
    with pytest.raises(DamagedLog, match="missing"):
        open_it(tmp_path / "n1")


def test_a_later_format_halts(tmp_path: Path) -> None:
    from zlib import crc32

    init(tmp_path / "n1")
    path = tmp_path / "n1" / "identity.json"
    fields = json.loads(path.read_text())
    del fields["checksum"]
    fields["format"] = 2
    fields["checksum"] = f"{crc32(json.dumps(fields, sort_keys=True).encode()):08x}"
    path.write_text(json.dumps(fields))
    with pytest.raises(UnknownFormat, match="format 2"):
        open_it(tmp_path / "n1")


@pytest.mark.parametrize("survivors", ["none", "half", "all"])
def test_a_crash_during_init_leaves_no_store_or_the_whole_one(survivors: str) -> None:
    outcomes = set()
    finished = False
    step = 0
    while not finished:
        disk = SimulatedDisk()
        disk.crash_at = step
        try:
            init("/data/n1", disk)
            finished = True
        except SimulatedCrash:
            pass
        names = {"none": lambda n: 0, "half": lambda n: n // 2, "all": lambda n: n}[survivors]
        disk.power_off(lambda n: n % 2 == 0, names)
        try:
            opened = open_it("/data/n1", disk)
        except NotInitialised:
            outcomes.add("none")
            assert not finished
            init("/data/n1", disk, Identity(CLUSTER, STORE + 1, "n1"))
            disk.power_off()
            assert open_it("/data/n1", disk).identity.store_id == STORE + 1
        else:
            outcomes.add("whole")
            assert (opened.identity, content(opened.recovered)) == (IDENTITY, GENESIS_CONTENT)
            opened.close()
            with pytest.raises(AlreadyInitialised):
                init("/data/n1", disk)
        step += 1
    assert outcomes == {"none", "whole"}
    assert step > 15


def test_no_incarnation_is_given_out_twice_whatever_crashes() -> None:
    disk = SimulatedDisk()
    init("/n1", disk)
    given: list[int] = []
    for steps in range(60):
        disk.crash_at = disk.step_count + steps % 20
        try:
            opened = open_it("/n1", disk)
            given.append(opened.incarnation)
            given.append(opened.next_incarnation())
        except SimulatedCrash:
            pass
        disk.power_off(lambda n: n % 2 == 0, (lambda count: count) if steps % 2 else (lambda _: 0))
    assert len(given) > 20
    assert given == sorted(set(given))


def test_the_in_memory_twin_has_the_same_face() -> None:
    twin = MemoryDirectory(IDENTITY, FIRST, [GENESIS])
    assert (twin.identity, twin.incarnation, content(twin.recovered)) == (IDENTITY, 1, GENESIS_CONTENT)
    twin.log.append(HardState(2, 0, 1), [entry(2, 2)], sync=True)
    twin.log.append(None, [entry(2, 3), entry(3, 3)], sync=True)
    assert content(twin.log.recovered()) == GENESIS_CONTENT.after(
        HardState(2, 0, 1), [entry(2, 3), entry(3, 3)]
    )
    assert twin.next_incarnation() == 2
    twin.log.close()
    twin.close()
